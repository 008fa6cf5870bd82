"""Where caches are, and what is remembered where none can be."""

import pwd
from pathlib import Path

from serin_worker.cache_folder import cache_folder
from serin_worker.model.checkpoint import inspect
from serin_worker.model.digests import weights_digest


def test_who_has_no_home_has_a_folder_all_the_same(monkeypatch):
    """As in a container that runs as a user its image does not know."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/known")
    assert cache_folder("kernels") == Path("/home/known/.cache/serin/kernels")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert cache_folder("kernels") == Path("/.cache/serin/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder("kernels") == Path("/var/cache/serin/kernels")


def test_a_model_is_hashed_where_no_digest_can_be_kept(tiny_folder, tmp_path, as_plain_user, monkeypatch):
    """A folder that may not be looked into costs time and nothing else."""
    model = inspect(tiny_folder("llama"))
    kept = weights_digest(model, tmp_path / "kept")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(closed))
    try:
        assert as_plain_user(lambda: weights_digest(model)) == kept
    finally:
        closed.chmod(0o755)
    assert list(closed.iterdir()) == []
