"""News of many sequences on their way to one slow reader, bounded: news of one sequence melt together while they wait.

Knows nothing about gRPC or protobuf.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

from serin_tokenizer_svc.sequence import StopFound

MERGED_CHARS = 1 << 16
"""News are not melted together beyond this much text, so that a message stays far below gRPC's limit."""
TAKEN_NEWS = 256
TAKEN_CHARS = 1 << 18
"""News and text that one message carries, about."""
MAX_CHARS = 4 << 20
"""Text that may wait for the reader; while it does, nothing more is taken from the caller."""
MAX_NEWS = 16_384
"""News that may wait for the reader."""


@dataclass(frozen=True, slots=True)
class News:
    """What happened to one sequence.

    Attributes:
        sequence_id: the caller's name for it.
        text: text that became certain.
        watermark: ids consumed.
        delivered_bytes: bytes of text sent, these included.
        credit: set on the first news.
        stop: the stop string that ended it.
        closed: no more news follow.
        failure: reason and sentence, if it failed.
    """

    sequence_id: str
    text: str = ""
    watermark: int = 0
    delivered_bytes: int = 0
    credit: int = 0
    stop: StopFound | None = None
    closed: bool = False
    failure: tuple[str, str] | None = None

    def then(self, later: "News") -> "News":
        """These news and later ones of the same sequence as one."""
        return replace(later, text=self.text + later.text, credit=self.credit or later.credit)


class Outbox:
    """News in order of their sequence's first waiting one. One task puts, one task takes."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[int, int], News] = OrderedDict()
        self._newest: dict[int, tuple[int, int]] = {}
        self._num_put = 0
        self._num_chars = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._ended = False

    async def put(self, serial: int, news: News) -> None:
        """Add news of a sequence; waits while too much is waiting. ``serial`` numbers sequences, never reused."""
        while self._num_chars > MAX_CHARS or len(self._waiting) > MAX_NEWS:
            self._drained.clear()
            await self._drained.wait()
        self._num_chars += len(news.text)
        key = self._newest.get(serial)
        if key is not None and len(self._waiting[key].text) + len(news.text) <= MERGED_CHARS:
            self._waiting[key] = self._waiting[key].then(news)
        else:
            self._num_put += 1
            key = self._newest[serial] = (serial, self._num_put)
            self._waiting[key] = news
        self._filled.set()

    def end(self) -> None:
        """Say that nothing more will be put."""
        self._ended = True
        self._filled.set()

    async def take(self) -> list[tuple[int, News]]:
        """Remove and return what fits one message, oldest first; empty when there will be none any more."""
        while not self._waiting:
            if self._ended:
                return []
            self._filled.clear()
            await self._filled.wait()
        taken: list[tuple[int, News]] = []
        num_chars = 0
        while self._waiting and len(taken) < TAKEN_NEWS and num_chars < TAKEN_CHARS:
            key, news = self._waiting.popitem(last=False)
            if self._newest[key[0]] == key:
                del self._newest[key[0]]
            num_chars += len(news.text)
            taken.append((key[0], news))
        self._num_chars -= num_chars
        self._drained.set()
        return taken
