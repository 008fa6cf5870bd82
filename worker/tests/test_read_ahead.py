"""What is read while libraries load: digests are known afterwards, and nothing that is wrong is said here."""

import subprocess
import sys
import threading

from serin_worker.model import checkpoint, digests
from serin_worker.model.read_ahead import read_ahead


def test_the_digest_is_remembered(tiny_folder, tmp_path, monkeypatch):
    """So that the start that follows hashes nothing; cancelled in time, nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, cancelled = tiny_folder("llama"), threading.Event()
    cancelled.set()
    read_ahead(str(folder), cancelled)
    assert not list(tmp_path.rglob("*.json"))
    read_ahead(str(folder), threading.Event())
    monkeypatch.setattr(digests, "_hash", None)
    assert digests.weights_digest(checkpoint.inspect(folder))


def test_what_is_wrong_is_left_to_those_who_load(tmp_path):
    """No folder, no configuration, a hub's name."""
    for model in (tmp_path / "none", tmp_path, "organization/name"):
        read_ahead(str(model), threading.Event())


def test_it_does_not_import_what_it_is_there_to_hide():
    """Torch is imported beside it."""
    script = "import sys, serin_worker.model.read_ahead; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
