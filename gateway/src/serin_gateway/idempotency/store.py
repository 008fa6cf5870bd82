"""Where answers are kept for those who ask again: the seam, and its twin in memory.

A name is claimed by whoever makes its answer; the claim lapses when it is not renewed, so a gateway that dies does not
bar its name. Knows nothing about requests or Redis.
"""

import enum
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CLAIM_S = 14.0
"""A claim that is not renewed for this long lapses; whoever waits for that sees it within 15 s of the last renewal."""
KEPT_S = 86_400.0
"""A complete answer is kept this long."""
MAX_KEPT_BYTES = 8 << 20
"""Of one answer; what is longer is delivered, and not kept."""
MAX_MEMORY_BYTES = 64 << 20


class AnswersDown(Exception):
    """The store did not answer in time."""


class State(enum.StrEnum):
    """Where the answer of a name stands."""

    MINE = "mine"
    """Nobody had made it: whoever asked makes it now."""
    RUNNING = "running"
    KEPT = "kept"
    TOO_LONG = "too_long"
    """It was delivered, and is not kept."""
    GONE = "gone"
    """Nobody makes it, and it is not kept: it failed, its gateway died, or its time is over."""
    UNSEEN = "unseen"
    """Only said when it is finished: gone, and nobody has seen any of it though it used something."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A store's answer to a claim: the state, the fingerprint of what was asked under the name first, and by whom."""

    state: State
    fingerprint: str
    owner: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a store has of an answer: its state, frames from where it was asked for, and who makes or made it.

    ``num_renewals``: of the claim; one more since the last look says that its maker lives.
    """

    state: State
    frames: Sequence[bytes] = ()
    owner: str = ""
    num_renewals: int = 0


class AnswerStore(Protocol):
    """Keeps answers by name. Every method may raise :class:`AnswersDown`."""

    async def claim(self, name: str, fingerprint: str, owner: str) -> Claim:
        """Become the one who makes an answer, or hear who does.

        Args:
            name: of the answer.
            fingerprint: of what is asked.
            owner: new for each answer that is made. Whoever had the name, let its claim lapse and said nothing of an
                end is taken for dead: what was made under that owner is not billed. Nor is what ended `UNSEEN`.
        """

    async def renew(self, name: str, owner: str, frames: Sequence[bytes], at: int) -> bool:
        """Keep a claim, and what was made since: ``frames`` go behind the first ``at``.

        Returns whether the claim still is the owner's. Doing it again does no harm.
        """

    async def finish(self, name: str, owner: str, state: State, ttl_s: float = KEPT_S) -> None:
        """The answer is complete (`KEPT`), not kept (`TOO_LONG`), or to be made again (`GONE`, `UNSEEN`)."""

    async def read(self, name: str, at: int) -> Found:
        """Frames behind the first ``at``."""


@dataclass(slots=True)
class _Kept:
    fingerprint: str
    owner: str
    ends_at: float
    state: State = State.RUNNING
    frames: list[bytes] = field(default_factory=list)
    num_renewals: int = 0

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.frames))


class MemoryAnswers:
    """Answers of one process, up to ``max_bytes``; the oldest go first. ``down`` makes every call fail.

    Its answers, claims and ledger end together, so no death leaves anything that could be billed twice. Nothing is
    taken back of what ended unseen: a ledger in memory is nobody's bill.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.down = False

    async def claim(self, name: str, fingerprint: str, owner: str) -> Claim:
        """Become the one who makes an answer, or hear who does."""
        kept = self._find(name)
        if kept is not None:
            return Claim(kept.state, kept.fingerprint, kept.owner)
        self._kept[name] = _Kept(fingerprint, owner, self._clock() + CLAIM_S)
        return Claim(State.MINE, fingerprint, owner)

    async def renew(self, name: str, owner: str, frames: Sequence[bytes], at: int) -> bool:
        """Keep a claim, and what was made since."""
        kept = self._find(name)
        if kept is None or kept.owner != owner or kept.state is not State.RUNNING:
            return False
        kept.frames[at:] = frames
        kept.num_renewals += 1
        kept.ends_at = self._clock() + CLAIM_S
        return True

    async def finish(self, name: str, owner: str, state: State, ttl_s: float = KEPT_S) -> None:
        """The answer is complete, or not kept."""
        kept = self._find(name)
        if kept is None or kept.owner != owner:
            return
        if state in (State.GONE, State.UNSEEN):
            del self._kept[name]
            return
        kept.state, kept.ends_at = state, self._clock() + ttl_s
        if state is State.TOO_LONG:
            kept.frames = []
        num_bytes = sum(one.num_bytes for one in self._kept.values())
        for oldest, one in list(self._kept.items()):
            if num_bytes <= self._max_bytes:
                break
            if one.state is not State.RUNNING:
                num_bytes -= self._kept.pop(oldest).num_bytes

    async def read(self, name: str, at: int) -> Found:
        """Frames behind the first ``at``."""
        kept = self._find(name)
        return Found(State.GONE) if kept is None else Found(kept.state, kept.frames[at:], kept.owner, kept.num_renewals)

    def _find(self, name: str) -> _Kept | None:
        if self.down:
            raise AnswersDown("the answers are down")
        kept = self._kept.get(name)
        if kept is not None and kept.ends_at <= self._clock():
            del self._kept[name]
            return None
        return kept
