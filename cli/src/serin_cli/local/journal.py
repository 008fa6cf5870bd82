"""A log file that never grows beyond its bound, and the last complaint in it.

Knows bytes and files, not what is logged; a full disk loses lines and stops nothing.
"""

import contextlib
import json
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

ROTATE_AT_BYTES = 8 * 1024 * 1024
NUM_KEPT = 2  # rotated files beside the current one
NUM_TAIL_LINES = 50
LINE_LIMIT = 2000  # characters of a line kept in memory
_FRAME = re.compile(r'  File "(.+)", line (\d+)')


class Journal:
    """Appends to NAME.log; at the bound it becomes NAME.log.1, and the oldest is dropped."""

    def __init__(self, path: Path, rotate_at_bytes: int = ROTATE_AT_BYTES) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=NUM_TAIL_LINES)
        self._rotate_at_bytes = rotate_at_bytes
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Append what a process wrote."""
        self._remember(data)
        with contextlib.suppress(OSError):
            if self.path.exists() and self.path.stat().st_size + len(data) > self._rotate_at_bytes:
                self._rotate()
            with self.path.open("ab") as file:
                file.write(data)

    def begin(self) -> None:
        """Forget the tail: a new process writes from here on."""
        self.tail.clear()
        self._rest = b""

    def complaint(self) -> str:
        """The last thing said that sounds like a reason to die; empty if nothing was said."""
        lines = [line for line in [*self.tail, _text(self._rest)] if line.strip()]
        complaints = [(index, text) for index, line in enumerate(lines) if (text := _complaint(line))]
        if not complaints:
            return _plain(lines[-1]) if lines else ""
        index, text = complaints[-1]
        return text + _raised_at(lines[:index])

    def _remember(self, data: bytes) -> None:
        *complete, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT:]
        self.tail.extend(_text(line) for line in complete)

    def _rotate(self) -> None:
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{i}") for i in range(1, NUM_KEPT + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")[:LINE_LIMIT].rstrip()


def _complaint(line: str) -> str:
    record = _record(line)
    if record is None:
        # A refusal is a line of its own; of a traceback the last line says what happened, and that is not indented.
        return "" if line.startswith((" ", "Traceback")) else line
    if str(record.get("level", "")).lower() in ("error", "critical", "fatal"):
        return _plain(line)
    return ""


def _raised_at(lines: Sequence[str]) -> str:
    """File and line of the last frame of a traceback, if what precedes is one."""
    for line in reversed(lines):
        if frame := _FRAME.match(line):
            return f" ({frame[1]}:{frame[2]})"
        if not line.startswith(" "):
            break
    return ""


def _plain(line: str) -> str:
    record = _record(line)
    if record is None:
        return line.strip()
    *before, exception = str(record.get("exception") or "").strip().split("\n")
    exception += _raised_at(before)
    parts = [str(record.get("event", "")), str(record.get("error") or record.get("message") or ""), exception]
    return ": ".join(part for part in parts if part)


def _record(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
