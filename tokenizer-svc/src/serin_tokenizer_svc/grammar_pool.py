"""Grammars checked in processes that are killed when they take too long; what was found is kept for a while.

The processes start with the first grammar: a mesh that is asked for none has none. Knows nothing about gRPC.
"""

import asyncio
import copy
from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serin_mesh.identity import digest_bytes
from serin_mesh.pieces import PieceTable

from serin_tokenizer_svc.child import frame
from serin_tokenizer_svc.children import ChildEnded, Children, ChildrenBusy, ChildStuck, Program
from serin_tokenizer_svc.errors import GrammarBusy, GrammarError, GrammarLimit, GrammarRejected, GrammarsUnsupported
from serin_tokenizer_svc.grammar import MAX_GRAMMAR_BYTES, GrammarSource

ENTRY_BYTES = 512
"""What an entry of the cache takes beside its text."""


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """What checking grammars may use.

    Attributes:
        timeout_s: wall-clock seconds of one check.
        memory_bytes: address space of a process that checks.
        num_processes: checks that run at once.
        num_waiting: checks that may wait for a process.
        cache_bytes: memory for what was found.
    """

    timeout_s: float = 3.0
    memory_bytes: int = 1 << 30
    num_processes: int = 2
    num_waiting: int = 256
    cache_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A grammar in the worker's language.

    Attributes:
        text: the grammar.
        num_tokens: no text that it allows has fewer, as far as is known.
        why: what makes its texts so long.
        parameter: the part to blame for that; empty: the whole.
    """

    text: str
    num_tokens: int = 0
    why: str = ""
    parameter: str = ""

    def refuse_long(self, max_tokens: int) -> None:
        """Refuse a grammar that allows no text of at most so many tokens.

        Raises:
            GrammarLimit: it is one.
        """
        if self.num_tokens > max_tokens:
            raise GrammarLimit(f"{self.why}; the model's context has room for {max_tokens}", self.parameter)


class GrammarPool:
    """Checks grammars in processes of its own; an asynchronous context manager.

    Args:
        pieces: bytes of each id; None: no grammar can be followed with this tokenizer.
        limits: what checking may use.
    """

    def __init__(self, pieces: PieceTable | None, limits: GrammarLimits) -> None:
        self._limits = limits
        self._is_supported = pieces is not None
        self.cache = GrammarCache(limits.cache_bytes)
        self._asked: dict[bytes, asyncio.Task[Prepared]] = {}
        self.children = Children(
            Program("serin_tokenizer_svc.grammar_child", _setup(pieces, limits), _nothing),
            num_processes=limits.num_processes,
            num_waiting=limits.num_waiting,
            timeout_s=limits.timeout_s,
            on_demand=True,
        )

    async def __aenter__(self) -> Self:
        await self.children.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.children.__aexit__(kind, error, trace)

    async def prepare(self, source: GrammarSource, max_tokens: int = 0) -> str:
        """The grammar in the worker's language. Equal grammars are checked once, whoever asks.

        Args:
            source: the grammar as its caller wrote it.
            max_tokens: what it allows must have room in so many; 0: in any number.

        Raises:
            GrammarRejected: it is damaged, asks for what cannot be enforced, or allows nothing.
            GrammarLimit: it is too large, takes too long to check or to follow, or allows nothing so short.
            GrammarsUnsupported: no grammar can be followed with this tokenizer.
            GrammarBusy: too many wait already.
        """
        if not self._is_supported:
            raise GrammarsUnsupported(
                "this model's tokenizer has a decoder that looks at neighbouring tokens; grammars need tokens with "
                "bytes of their own"
            )
        if len(source.text) > MAX_GRAMMAR_BYTES or len(source.text.encode()) > MAX_GRAMMAR_BYTES:
            raise GrammarLimit(f"the grammar is longer than {MAX_GRAMMAR_BYTES} bytes")
        key = digest_bytes(source.kind.encode(), source.text.encode(), bytes([source.lenient]))
        found = self.cache.find(key)
        if found is None:
            found = await self._check(key, source)
        if isinstance(found, GrammarError):
            raise copy.copy(found)
        if max_tokens:
            found.refuse_long(max_tokens)
        return found.text

    async def _check(self, key: bytes, source: GrammarSource) -> Prepared:
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._checked(key, source))
            task.add_done_callback(lambda done: (self._asked.pop(key), done.cancelled() or done.exception()))
        return await asyncio.shield(task)  # one caller's cancel is not the others'

    async def _checked(self, key: bytes, source: GrammarSource) -> Prepared:
        answer = await self._ask(source)  # what this raises is not kept: the machine may have been busy
        if "grammar" in answer:
            prepared = Prepared(answer["grammar"], **answer["least"])
            self.cache.keep(key, prepared)
            return prepared
        is_limit = "limit" in answer
        kind, why = (GrammarLimit, answer["limit"]) if is_limit else (GrammarRejected, answer["refused"])
        error = kind(why, answer.get("parameter", ""))
        self.cache.keep(key, error)
        raise error

    async def _ask(self, source: GrammarSource) -> dict[str, Any]:
        job = frame({"kind": source.kind, "text": source.text, "lenient": source.lenient})
        try:
            try:
                return await self.children.ask(job)
            except ChildEnded:  # perhaps not for this job: the machine may have been short of memory
                return await self.children.ask(job)
        except ChildEnded:
            raise GrammarLimit("the process that checked the grammar died twice; it needs too much memory") from None
        except ChildStuck as error:
            raise GrammarLimit(f"checking the grammar took {error}") from None
        except ChildrenBusy as error:
            raise GrammarBusy(f"grammars to be checked: {error}") from None


class GrammarCache:
    """What was found about grammars, the least recently used forgotten first, within so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._found: OrderedDict[bytes, Prepared | GrammarError] = OrderedDict()
        self.num_bytes = 0
        self.num_hits = 0

    def find(self, key: bytes) -> Prepared | GrammarError | None:
        """What is known; None: nothing."""
        found = self._found.get(key)
        if found is not None:
            self._found.move_to_end(key)
            self.num_hits += 1
        return found

    def keep(self, key: bytes, found: Prepared | GrammarError) -> None:
        """Remember, for as long as there is room."""
        previous = self._found.pop(key, None)
        if previous is not None:
            self.num_bytes -= _size(previous)
        self._found[key] = found
        self.num_bytes += _size(found)
        while self.num_bytes > self._max_bytes:
            _, oldest = self._found.popitem(last=False)
            self.num_bytes -= _size(oldest)


def _size(found: Prepared | GrammarError) -> int:
    texts = (found.text, found.why) if isinstance(found, Prepared) else (str(found),)
    return ENTRY_BYTES + sum(len(text.encode()) for text in texts)


def _setup(pieces: PieceTable | None, limits: GrammarLimits) -> dict[str, Any]:
    rest, special = (pieces.rest, pieces.special) if pieces is not None else ((), frozenset[int]())
    return {
        "tokens": [piece.decode("latin-1") for piece in rest],
        "special": sorted(special),
        "memory_bytes": limits.memory_bytes,
        "alarm_s": 2 * limits.timeout_s + 1,
    }


def _nothing(answer: dict[str, Any]) -> None:
    """A process that answered is ready."""
