"""The two gateways that are compared, each before a back end that streams as fast as asked.

Ours: a mesh of real processes with engine twins as workers. LiteLLM: its proxy, one process, in an environment of its
own, before :mod:`fake_openai`. Knows how they are started and stopped, nothing about load.
"""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.further_gateways import further_gateway, process
from harness.running_mesh import RunningMesh
from serin_mesh.testing import free_port

HERE = Path(__file__).resolve().parent
LITELLM = "litellm[proxy]==1.105.0"
LITELLM_KEY = "sk-bench"
START_S = 120.0
FAST, PACED = "fast", "paced"
"""Two models: as fast as asked, and at a set rate."""
_DEMO_MODEL = HERE.parents[1] / "deploy" / "models" / "small" / "v2"


class NotStarted(Exception):
    """A process did not come up; the message holds what it printed last."""


@dataclass(frozen=True)
class Side:
    """A gateway that answers.

    Attributes:
        name: what tables call it.
        urls: base URL of each of its gateway processes.
        direct: base URL of its back end, where that speaks HTTP too.
        key: bearer key.
        gateways: pid of each gateway process.
        others: pids of what else it needs, back ends left out.
    """

    name: str
    urls: list[str]
    key: str
    gateways: Mapping[str, int]
    others: Mapping[str, int] = field(default_factory=dict)
    direct: str = ""


@contextlib.contextmanager
def ours(folder: Path, paced_tokens_per_s: float, *, num_gateways: int = 1) -> Iterator[tuple[Side, RunningMesh]]:
    """A mesh whose workers are engine twins; every request is counted against limits that it never meets."""
    limits = "{requests_per_minute: 1000000, tokens_per_minute: 100000000}"
    models = "".join(
        f"  {name}:\n    path: {_DEMO_MODEL}\n    workers: 0\n    limits: {limits}\n" for name in (FAST, PACED)
    )
    mesh = RunningMesh(folder / f"mesh-{num_gateways}", f"models:\n{models}")
    mesh.start()
    with contextlib.ExitStack() as stack:
        stack.callback(mesh.stop)
        for model, rate in ((FAST, 1e6), (PACED, paced_tokens_per_s)):
            stack.enter_context(process(_twin(mesh, model, rate), folder / f"{model}-{num_gateways}.log"))
        pids = {name: member.pid for name, member in mesh.members().items()}
        urls, gateways = [mesh.rest], {"gateway": pids.pop("gateway")}
        for number in range(1, num_gateways):
            name = f"bench-{number}"
            url, further = stack.enter_context(further_gateway(mesh, name, folder))
            _await_url(f"{url}/ready", further, folder / f"{name}.log")
            urls.append(url)
            gateways[f"gateway {number + 1}"] = further.pid
        yield Side("serin", urls, mesh.key, gateways, pids), mesh


@contextlib.contextmanager
def litellm(folder: Path, environment: Path, paced_tokens_per_s: float) -> Iterator[Side]:
    """LiteLLM's proxy, one process, its log quiet and its extras off."""
    python = _install(environment)
    with contextlib.ExitStack() as stack:
        entries = []
        for model, rate in ((FAST, 1e6), (PACED, paced_tokens_per_s)):
            port, log = free_port(), folder / f"openai-{model}.log"
            command = [sys.executable, str(HERE / "fake_openai.py"), "--port", str(port), "--tokens-per-s", str(rate)]
            _await_port(port, stack.enter_context(process(command, log)), log)
            entries.append((model, f"http://127.0.0.1:{port}"))
        config, port, log = folder / "litellm.yaml", free_port(), folder / "litellm.log"
        config.write_text(
            "model_list:\n"
            + "".join(
                f"  - model_name: {model}\n    litellm_params: "
                f"{{model: openai/{model}, api_base: {url}/v1, api_key: none}}\n"
                for model, url in entries
            )
            + f"general_settings: {{master_key: {LITELLM_KEY}}}\nlitellm_settings: {{telemetry: false}}\n"
        )
        command = [
            str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1",
        ]  # fmt: skip
        quiet = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION",
            "DISABLE_ADMIN_UI": "True", "NO_DOCS": "True",
        }  # fmt: skip
        proxy = stack.enter_context(process(command, log, quiet))
        _await_url(f"http://127.0.0.1:{port}/health/liveliness", proxy, log)
        url = f"http://127.0.0.1:{port}"
        yield Side("litellm", [url], LITELLM_KEY, {"litellm": proxy.pid}, direct=entries[0][1])


def _install(environment: Path) -> Path:
    python = environment / "bin" / "python"
    if not (environment / "bin" / "litellm").exists():
        print(f"installing {LITELLM} in {environment} (a minute or two)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", LITELLM], check=True)
    return python


def _twin(mesh: RunningMesh, model: str, tokens_per_s: float) -> list[str]:
    return [
        sys.executable, str(HERE / "engine_twin.py"), "--model", model, "--model-path", str(_DEMO_MODEL),
        "--control", mesh.control, "--instance", f"twin-{model}", "--tokens-per-s", str(tokens_per_s),
    ]  # fmt: skip


def _await_url(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in _patience(process, log):
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return


def _await_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in _patience(process, log):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return


def _patience(process: "subprocess.Popen[bytes]", log: Path) -> Iterator[None]:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise NotStarted(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-3000:]}")
