"""The digest of a model's weights, hashed once for each (path, size, modification time).

Knows nothing about what is inside the files.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from serin_mesh.identity import DIGEST_BYTES, digest_json

from serin_worker.cache_folder import cache_folder
from serin_worker.model.checkpoint import Checkpoint

_CHUNK_BYTES = 8 * 2**20


def weights_digest(
    checkpoint: Checkpoint, cache_folder: Path | None = None, progress: Callable[[float], None] | None = None
) -> str:
    """Hex digest over config.json and all weight files, by name.

    Args:
        checkpoint: the folder.
        cache_folder: where digests of files are remembered; by default in the user's cache folder.
        progress: called with the fraction of bytes hashed.
    """
    files = [checkpoint.folder / "config.json", *checkpoint.files]
    cache = _Cache(cache_folder or digest_folder())
    total = sum(path.stat().st_size for path in files)
    done = 0
    found: dict[str, str] = {}
    for path in files:
        digest = cache.get(path)
        if digest is None:
            digest = _hash(path, partial(_report, progress, done, total))
            cache.put(path, digest)
        found[path.name] = digest
        done += path.stat().st_size
        if progress:
            progress(done / total)
    return digest_json(found)


def digest_folder() -> Path:
    """Where digests are remembered: ``$XDG_CACHE_HOME/serin/digests``."""
    return cache_folder("digests")


class _Cache:
    """One small file for each hashed file, named by its path. A cache that cannot be written only costs time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, path: Path) -> str | None:
        try:
            entry = json.loads(self._place(path).read_text())
            return str(entry["digest"]) if entry["stamp"] == _stamp(path) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, path: Path, digest: str) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False) as file:
                json.dump({"stamp": _stamp(path), "digest": digest}, file)
            Path(file.name).replace(self._place(path))
        except OSError:
            return

    def _place(self, path: Path) -> Path:
        return self._folder / f"{hashlib.blake2b(str(path.resolve()).encode(), digest_size=16).hexdigest()}.json"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _report(progress: Callable[[float], None] | None, before: int, total: int, read: int) -> None:
    if progress:
        progress((before + read) / total)


def _hash(path: Path, progress: Callable[[int], None]) -> str:
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    read = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
            read += len(chunk)
            progress(read)
    return state.hexdigest()
