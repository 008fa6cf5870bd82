"""Weights on their way into memory while libraries are still being imported: the disk works meanwhile, not after.

Imports neither torch nor transformers; what is wrong with a folder is said by whoever loads it.
"""

import os
import threading
from pathlib import Path

from serin_worker.errors import ModelRefused
from serin_worker.model import checkpoint, digests

_SHARE_OF_MEMORY = 0.5
"""Larger models would push out of memory what was read first."""


class _Cancelled(Exception):
    pass


def read_ahead(model: str, cancelled: threading.Event) -> None:
    """Hash a folder's files unless their digest is remembered; then have the system read what it does not hold yet.

    Args:
        model: path of a folder; anything else is left alone.
        cancelled: ends it at the next chunk once it is set.
    """

    def progress(_: float) -> None:
        if cancelled.is_set():
            raise _Cancelled

    try:
        found = checkpoint.inspect(Path(model).expanduser())
        if found.weight_bytes > _SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            return
        digests.weights_digest(found, progress=progress)
        for path in found.files:
            _will_need(path)
    except (ModelRefused, OSError, _Cancelled):
        return


def _will_need(path: Path) -> None:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
