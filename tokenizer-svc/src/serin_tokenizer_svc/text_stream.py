"""Text that grows as ids come in, in time linear in the ids; half a character is held back.

Two ways, one interface: looking pieces up (``PieceStream``), and for decoders that look at neighbours decoding a short
window again (``WindowStream``). Knows nothing about stop strings, gRPC or who asks.
"""

import codecs
from collections.abc import Callable, Sequence, Set
from typing import Protocol

from serin_mesh.pieces import PieceTable

REPLACEMENT = "\ufffd"
MAX_HELD_TOKENS = 8
"""Tokens whose text may look unfinished before it is taken as it is; a character has at most 4 bytes."""


class TextStream(Protocol):
    """The text of one growing id sequence."""

    def append(self, token_ids: Sequence[int]) -> str:
        """Take ids, give the text that became certain."""
        ...

    def flush(self) -> str:
        """Give what was held back; U+FFFD for half a character."""
        ...


class PieceStream:
    """Grows by looking up the bytes of each id; one that goes on from another text has no beginning of its own."""

    def __init__(
        self, table: PieceTable, keep_special: bool, shown: Set[int] = frozenset(), *, goes_on: bool = False
    ) -> None:
        self._table = table
        self._first, self._rest = table.first, table.rest
        self._skip = frozenset() if keep_special else table.special - shown
        self._num_strip = 0 if goes_on else table.num_strip
        self._seen_first = goes_on or self._first is self._rest
        self._half = b""

    def append(self, token_ids: Sequence[int]) -> str:
        """Take ids, give the text that became certain."""
        data = self.take_bytes(token_ids)
        if self._half:
            data = self._half + data
        text, num_used = codecs.utf_8_decode(data, "replace", False)
        self._half = data[num_used:]
        return text

    def flush(self) -> str:
        """Give what was held back; U+FFFD for half a character."""
        text = self._half.decode("utf-8", "replace")
        self._half = b""
        return text

    def take_bytes(self, token_ids: Sequence[int]) -> bytes:
        """Take ids, give the bytes they stand for, characters whole or not."""
        if self._seen_first and not self._num_strip:
            return self._table.bytes_of(token_ids, self._skip)
        size = len(self._rest)
        return self._begin([i for i in token_ids if i < size and i not in self._skip])

    def _begin(self, visible: Sequence[int]) -> bytes:
        """Bytes of ids at the text's beginning, where the first id and leading spaces are special."""
        pieces = [self._rest[token_id] for token_id in visible]
        if pieces and not self._seen_first:
            pieces[0] = self._first[visible[0]]
            self._seen_first = True
        data = b"".join(pieces)
        while self._num_strip and data.startswith(b" "):
            data = data[1:]
            self._num_strip -= 1
        if data:
            self._num_strip = 0
        return data


class WindowStream:
    """Grows by decoding the newest ids together with those that gave text last, and giving what those did not.

    A window begins where a character began, and decoders look at one neighbour: so a window decodes as the whole does.
    """

    def __init__(self, decode: Callable[[list[int]], str], is_visible: Callable[[int], bool]) -> None:
        self._decode = decode
        self._is_visible = is_visible
        self._window: list[int] = []
        self._num_given = 0
        self._given = ""

    def append(self, token_ids: Sequence[int]) -> str:
        """Take ids, give the text that became certain."""
        return "".join([self._append_one(token_id) for token_id in token_ids if self._is_visible(token_id)])

    def flush(self) -> str:
        """Give what was held back; U+FFFD for half a character."""
        text = self._decode(self._window)
        new = text[len(self._given) :]
        self._given = text
        self._num_given = len(self._window)
        return new

    def _append_one(self, token_id: int) -> str:
        self._window.append(token_id)
        num_held = len(self._window) - self._num_given
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT) and num_held < MAX_HELD_TOKENS:
            return ""
        new = text[len(self._given) :]
        self._window = self._window[self._num_given :]
        self._num_given = len(self._window)
        self._given = self._decode(self._window)
        return new
