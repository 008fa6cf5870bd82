"""Models from the hub: the real client against a small hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_custom.py": b"code",
}


class Hub(BaseHTTPRequestHandler):
    """A hub with one model, org/tiny."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Describe the model, or send a file."""
        if self.path.startswith("/api/models/org/tiny/revision/main"):
            siblings = [{"rfilename": name} for name in FILES]
            self._send(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        elif self.path.startswith("/api/models/org/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in FILES.items()
            ]
            self._send(200, json.dumps(tree).encode())
        elif self.path.startswith("/org/tiny/resolve/"):
            data = FILES[self.path.rsplit("/", 1)[1].partition("?")[0]]
            self._send(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self):
        """Say what GET would send."""
        self.do_GET()

    def log_message(self, *_):
        """Say nothing."""

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {
            **(headers or {}),
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _oid(data):
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Address of the small hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _check(model, endpoint, tmp_path):
    """Run `serin config check` on a declaration of one hub model."""
    file = tmp_path / "serin.yaml"
    file.write_text(f"models:\n  tiny:\n    path: {model}\n")
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"), "")
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-m", "serin_cli", "config", "check", str(file)],
        env={**os.environ, **proxies, **hub},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_weights_and_descriptions_are_fetched_and_nothing_else(endpoint, tmp_path):
    """Safetensors and JSON come from the hub; pickles and code stay there."""
    done = _check("org/tiny", endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "good; models: tiny" in done.stdout
    fetched = {path.name for path in (tmp_path / "hub").rglob("snapshots/*/*")}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize(
    ("model", "said", "code"),
    [("org/none", "neither a folder here nor a model on the hub", 2), ("org/tiny", "the hub did not give it", 1)],
)
def test_a_hub_that_has_it_not_is_one_line(model, said, code, endpoint, tmp_path):
    """An unknown model is a mistake in the file, an unreachable hub is none; each is a line that says what to do."""
    done = _check(model, "http://127.0.0.1:9" if model == "org/tiny" else endpoint, tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert f"{tmp_path / 'serin.yaml'}:3: models.tiny.path: " in done.stderr
    assert done.stderr.count("\n") == 1
