"""Whether a served folder still holds exactly what was pushed.

Reading gigabytes at each start would take too long, so a file that was read once is believed as long as the system says
that nobody touched it: same size, inode, and times of change. Knows nothing about names and versions.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from serin_cli.models.blobs import content_of
from serin_cli.models.manifest import ModelFile
from serin_cli.state_dir import write_private

SETTLED_S = 2.0  # a file that was touched this recently may be touched again within the clock's own step

Stamp = list[int]


class Intact:
    """Compares a folder with what it should hold.

    Args:
        folder: what is served.
        memory: file to remember in what was read.
        settled_s: how long a file must have been left alone before it is believed unread.
    """

    def __init__(self, folder: Path, memory: Path, settled_s: float = SETTLED_S) -> None:
        self._folder, self._memory, self._settled_s = folder, memory, settled_s

    def damaged(self, files: Mapping[str, ModelFile]) -> Iterator[tuple[str, str]]:
        """Names of files that are not as they were, and what happened to them."""
        known, stamps = self._recall(), {}
        for name, file in files.items():
            path = self._folder / name
            try:
                stamp = _stamp(path)
                if known.get(name) != stamp and content_of(path).digest != file.digest:
                    yield name, "was changed after it was pushed"
                elif _stamp(path) == stamp and time.time() - stamp[-1] / 1e9 > self._settled_s:
                    stamps[name] = stamp
            except FileNotFoundError:
                yield name, "is missing"
            except OSError as error:
                yield name, f"cannot be read ({error.strerror})"
        yield from ((name, "was put there") for name in self._foreign(self._folder, files))
        if stamps != known:
            self._remember(stamps)

    def _foreign(self, folder: Path, files: Mapping[str, ModelFile]) -> Iterator[str]:
        """Names of what is there and was not pushed; a folder that holds nothing pushed is named as a whole."""
        for path in folder.iterdir() if folder.is_dir() else ():
            name = path.relative_to(self._folder).as_posix()
            if path.is_dir() and not path.is_symlink() and any(file.startswith(f"{name}/") for file in files):
                yield from self._foreign(path, files)
            elif name not in files:
                yield name

    def _recall(self) -> dict[str, Stamp]:
        try:
            known: dict[str, Stamp] = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self, stamps: Mapping[str, Stamp]) -> None:
        with contextlib.suppress(OSError):  # then it is read again the next time
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._memory, json.dumps(stamps))


def _stamp(path: Path) -> Stamp:
    status = path.stat(follow_symlinks=False)
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
