"""Shadow scoring: answers that were given are scored again on two lanes, in the background, to compare the lanes.

While a comparison runs that must not change answers, a share of the answers of its stable lane is scored by a worker
of either lane: the same ids, one prefill each, at the lowest priority. Answers of the other lane are left out: each
model finds its own answers likelier, so that the two kinds would cancel out. What does not fit into the bounds is
dropped and counted; nobody waits for any of it, nobody pays, no cache is written. Knows nothing about how workers are
called.
"""

import asyncio
import math
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serin_mesh.errors import MeshError

from serin_gateway.catalog import CatalogSource, Lane, Trial
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.observation import ShadowScore
from serin_gateway.observing.sessions import Sessions
from serin_gateway.placement import Placement
from serin_gateway.scoring import Scorers
from serin_gateway.tokenizer import CallScope
from serin_gateway.worker import TokenLogprob

TENANT_KEY = "shadow"
"""What workers count the tokens by; no caller has this key, so no caller's share is used up."""
MAX_WAITING = 16
MAX_TOKENS = 4096
"""Prompt and answer of a text that is scored; longer ones would hold a worker up."""
BUSY_SHARE = 0.5
"""A worker of which more than this share of its sequences is taken is left alone."""
TIMEOUT_S = 10.0
NUM_SCORERS = 1
OUTCOMES = ("scored", "full", "too_long", "busy", "gone", "failed")


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer that was given: by which lane of a model, in which session, as ids."""

    model: str
    lane: str
    session_key: str
    prompt: Sequence[int]
    answer: Sequence[int]


class Shadow(Protocol):
    """Takes answers that may be scored."""

    def offer(self, trial: Trial, answered: Answered) -> None:
        """Score it later, if it is drawn and there is room; returns at once."""


class NoShadow:
    """Scores nothing; keeps what it is offered, for tests."""

    def __init__(self) -> None:
        self.offered: list[Answered] = []

    def offer(self, trial: Trial, answered: Answered) -> None:
        """Keep it."""
        self.offered.append(answered)


class ShadowScorer:
    """Scores answers; `keep_scoring` is a task of whoever owns it.

    Args:
        catalog: which lanes there are by the time a text's turn comes.
        placement: which worker of a lane has the least to do.
        scorers: calls it.
        buffer: where scores go.
        sessions: numbers of sessions.
        rng: the source of chance.
    """

    def __init__(
        self,
        catalog: CatalogSource,
        placement: Placement,
        scorers: Scorers,
        buffer: ObservationBuffer,
        sessions: Sessions,
        rng: random.Random | None = None,
    ) -> None:
        self._catalog = catalog
        self._placement = placement
        self._scorers = scorers
        self._buffer = buffer
        self._sessions = sessions
        self._rng = rng or random.Random()
        self._waiting: asyncio.Queue[tuple[Answered, str]] = asyncio.Queue(MAX_WAITING)
        self.outcomes: Counter[str] = Counter()
        """How often each of :data:`OUTCOMES` came about."""

    def offer(self, trial: Trial, answered: Answered) -> None:
        """Draw it or not; put it in line or drop it."""
        if answered.lane != trial.stable_lane or not answered.answer or self._rng.random() >= trial.shadow_rate:
            return
        if not self._catalog.current().policy.shadow_scoring:
            return
        if len(answered.prompt) + len(answered.answer) > MAX_TOKENS:
            self.outcomes["too_long"] += 1
            return
        calibrates = self._rng.random() < trial.calibration_rate
        try:
            self._waiting.put_nowait((answered, trial.stable_lane if calibrates else trial.canary_lane))
        except asyncio.QueueFull:
            self.outcomes["full"] += 1

    async def keep_scoring(self) -> None:
        """Score what waits, one text at a time, for as long as this task lives."""
        while True:
            answered, other_lane = await self._waiting.get()
            self.outcomes[await self._score(answered, other_lane)] += 1

    async def _score(self, answered: Answered, other_lane: str) -> str:
        """Score one text on both lanes; returns which of the outcomes came about."""
        try:
            model = self._catalog.current().find(answered.model)
            stable, other = model.pinned_lane(answered.lane), model.pinned_lane(other_lane)
        except MeshError:
            return "gone"
        if stable.vocabulary_digest != other.vocabulary_digest:
            return "gone"
        if self._is_busy(stable) or self._is_busy(other):
            return "busy"
        try:
            mine, asked = await self._score_on(answered, stable, ())
            theirs, _ = await self._score_on(answered, other, (asked,) if len(other.workers) > 1 else ())
        except MeshError:
            return "failed"
        num_tokens = len(answered.answer)
        stable_mean, other_mean = (math.fsum(one.logprob for one in scores) / num_tokens for scores in (mine, theirs))
        if not (math.isfinite(stable_mean) and math.isfinite(other_mean)):
            return "failed"
        agreed = sum(_likeliest(one) == _likeliest(two) for one, two in zip(mine, theirs, strict=True))
        self._buffer.score(
            ShadowScore(
                answered.model,
                self._sessions.number(answered.session_key),
                stable.lane,
                other.lane,
                num_tokens,
                stable_mean,
                other_mean,
                agreed / num_tokens,
            )
        )
        return "scored"

    async def _score_on(
        self, answered: Answered, lane: Lane, avoid: Sequence[str]
    ) -> tuple[Sequence[TokenLogprob], str]:
        """The scores of one lane and the endpoint that made them; a calibration asks two different ones if it can."""
        worker = self._placement.choose(lane, len(answered.prompt) + len(answered.answer), {}, avoid)
        scope = CallScope(f"shadow-{secrets.token_hex(8)}", answered.model, lane, TENANT_KEY, TIMEOUT_S)
        return await self._scorers.score(scope, worker, answered.prompt, answered.answer), worker.endpoint

    def _is_busy(self, lane: Lane) -> bool:
        """Whether even the least busy worker of a lane has too much to do."""
        return all(
            worker.max_sequences and self._placement.num_running(worker) > BUSY_SHARE * worker.max_sequences
            for worker in lane.workers
        )


def _likeliest(score: TokenLogprob) -> int:
    return score.alternatives[0][0]
