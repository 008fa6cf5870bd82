"""Where a user's caches are, as the XDG base directory specification has it.

Knows nothing about what is kept there, and promises nothing: a folder may be missing, or be another user's.
"""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """``$XDG_CACHE_HOME/serin/NAME``; without that variable in ``~/.cache``, or in ``/.cache`` for who has no home."""
    root = os.environ.get("XDG_CACHE_HOME")
    if root:
        return Path(root) / "serin" / name
    try:
        home = Path.home()
    except RuntimeError:  # as in a container that runs as a user its image does not know
        home = Path("/")
    return home / ".cache" / "serin" / name
