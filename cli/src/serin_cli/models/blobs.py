"""Files by content: each is kept once, under the digest of its bytes, and never written again.

A file appears complete or not at all. Knows nothing about models.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serin_mesh.identity import DIGEST_BYTES

CONTENT_BYTES = 32  # BLAKE2b-256: nobody makes two files of one digest
CHUNK_BYTES = 4 * 1024 * 1024

Progress = Callable[[int], None]
"""Called with the bytes read since the last call."""


@dataclass(frozen=True)
class Content:
    """What a file holds: its size, its digest, and the shorter digest that workers know it by, both in hex."""

    num_bytes: int
    digest: str
    identity: str


class Blobs:
    """A folder of files by content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, digest: str) -> Path:
        """Where the file of a digest is, or would be."""
        return self._folder / digest[:2] / digest

    def take(self, source: Path, progress: Progress) -> Content:
        """Keep a copy of a file; what is kept already is read again and replaced if it was damaged.

        Raises:
            OSError: it cannot be read, or there is no room.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=self._folder, prefix=".incoming-")
        try:
            with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
                content = _read(reading, progress, writing.write)
                writing.flush()
                os.fsync(writing.fileno())
            self._settle(Path(scratch), content.digest)
        finally:
            Path(scratch).unlink(missing_ok=True)
        return content

    def sweep(self) -> None:
        """Remove what broken-off pushes left; only while nobody else takes files."""
        for scratch in self._folder.glob(".incoming-*"):
            scratch.unlink(missing_ok=True)

    def _settle(self, scratch: Path, digest: str) -> None:
        place = self.place(digest)
        if place.is_file() and content_of(place).digest == digest:
            return
        place.parent.mkdir(mode=0o700, exist_ok=True)
        scratch.chmod(0o444)
        scratch.replace(place)
        sync_folder(place.parent)


def content_of(path: Path, progress: Progress = lambda _: None) -> Content:
    """Read a file for its digest.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as reading:
        return _read(reading, progress, lambda _: None)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(reading: BinaryIO, progress: Progress, write: Callable[[bytes], object]) -> Content:
    content, identity = hashlib.blake2b(digest_size=CONTENT_BYTES), hashlib.blake2b(digest_size=DIGEST_BYTES)
    num_bytes = 0
    while chunk := reading.read(CHUNK_BYTES):
        content.update(chunk)
        identity.update(chunk)
        write(chunk)
        num_bytes += len(chunk)
        progress(len(chunk))
    return Content(num_bytes, content.hexdigest(), identity.hexdigest())
