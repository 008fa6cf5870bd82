"""`serin env`: lines that any POSIX shell can evaluate, whatever the key holds."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from serin_cli.__main__ import main
from serin_cli.record import MeshRecord


@pytest.mark.parametrize("shell", [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)])
@pytest.mark.parametrize("key", ["sk-serin-abc", 'it\'s $HOME `odd` "key"'])
def test_a_shell_gets_what_was_meant(shell, key, state, capsys):
    """The exports set the two variables to exactly the address and the key."""
    lock = state.lock()
    try:
        MeshRecord(os.getpid(), "ready", "http://127.0.0.1:8123", "", "", "").write(state)
        state.default_key.write_text(key + "\n")
        assert main(["env", "--state", str(state.root)]) == 0
    finally:
        os.close(lock)
    script = 'eval "$EXPORTS"; printf "%s\\n%s" "$OPENAI_BASE_URL" "$OPENAI_API_KEY"'
    environment = {"PATH": os.environ["PATH"], "EXPORTS": capsys.readouterr().out}
    shown = subprocess.run([shell, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert shown == f"http://127.0.0.1:8123/v1\n{key}"


def test_with_an_edge_the_sdk_is_pointed_at_it(state, capsys):
    """Its address, and the file that makes its certificate trusted."""
    lock = state.lock()
    try:
        record = MeshRecord(os.getpid(), "ready", "http://127.0.0.1:1", "", "", "", edge="https://127.0.0.1:8443")
        replace(record, edge_trust="/s/certs/trust.pem").write(state)
        state.default_key.write_text("sk-serin-abc\n")
        assert main(["env", "--state", str(state.root)]) == 0
    finally:
        os.close(lock)
    lines = capsys.readouterr().out.splitlines()
    assert "export OPENAI_BASE_URL=https://127.0.0.1:8443/v1" in lines
    assert "export SSL_CERT_FILE=/s/certs/trust.pem" in lines


def test_the_directory_may_come_from_the_environment(state, monkeypatch, capsys):
    """SERIN_STATE names the directory where the flag does not."""
    monkeypatch.setenv("SERIN_STATE", str(state.root))
    assert main(["env"]) == 1
    assert str(state.root) in capsys.readouterr().err
