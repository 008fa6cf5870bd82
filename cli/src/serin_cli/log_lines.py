"""Log files as people read them: the last lines, new lines as they come, JSON as plain words.

Knows files and the shape of a log line, nothing about who wrote it.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

POLL_S = 0.2
_SHOWN_FIRST = ("timestamp", "level", "event")
_SAID_BY_FILE = ("service", "instance")


class Follower:
    """Reads some log files from near their ends, across rotation."""

    def __init__(self, paths: Sequence[Path], num_lines: int) -> None:
        self._paths, self._num_lines = paths, num_lines
        self._places: dict[Path, tuple[int, int]] = {}  # inode and byte offset up to which a file was read
        self._rests: dict[Path, bytes] = {}

    def tail(self) -> Iterator[tuple[Path, str]]:
        """The last lines of each file."""
        for path in self._paths:
            yield from ((path, line) for line in deque(self._fresh(path), maxlen=self._num_lines))

    def follow(self) -> Iterator[tuple[Path, str]]:
        """New lines of all files, for ever."""
        while True:
            quiet = True
            for path in self._paths:
                for line in self._fresh(path):
                    quiet = False
                    yield path, line
            if quiet:
                time.sleep(POLL_S)

    def _fresh(self, path: Path) -> Iterator[str]:
        try:
            file = path.open("rb")
        except OSError:
            return
        with file:
            inode = path.stat().st_ino
            known, offset = self._places.get(path, (inode, 0))
            file.seek(offset if known == inode else 0)
            data = self._rests.get(path, b"") + file.read()
            self._places[path] = (inode, file.tell())
        *lines, self._rests[path] = data.split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


def readable(line: str) -> str:
    """A JSON line as time, level, event and facts; any other line as it is."""
    try:
        record = json.loads(line) if line.startswith("{") else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return line
    moment = str(record.get("timestamp", ""))[11:23]
    facts = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in record.items()
        if key not in _SHOWN_FIRST + _SAID_BY_FILE
    ]
    return " ".join([moment, f"{record.get('level', ''):<7}", str(record.get("event", "")), *facts]).strip()
