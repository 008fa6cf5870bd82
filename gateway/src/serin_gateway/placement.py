"""Which worker gets a prompt: the one with the least to do for it, at random among the nearly best.

What a worker has to do is counted in tokens: the part of the prompt it does not hold, and what this gateway and others
have placed on it already. Knows nothing about how a prefix's holders are found or how a worker is called.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import RETRY_AFTER_S, Lane, ServedModel, Worker

TOKENS_PER_RUNNING_CHOICE = 64
"""A running choice weighs as much as this many prompt tokens: it takes part in every step until it ends."""

FULL_PENALTY_TOKENS = 4096
"""Added when all of a worker's sequences are taken: the prompt would wait."""

MAX_KNOWN_CLASSES = 10_000

NEARLY = 0.1
"""A worker within this share of the cheapest (and 32 tokens) is as good as it."""


MAX_LOST_IN_A_ROW = 5
LEFT_ALONE_S = 2.0
"""A worker that let go of so many prompts in a row, without beginning one, is left alone for so long while others are
there: it has always the least to do, and would get every prompt first."""


class Loads(Protocol):
    """What workers report, and whether they and tokenizers live."""

    def num_sequences(self, endpoint: str) -> int:
        """Sequences that run or wait on a worker, whoever placed them; 0 when that is unknown."""

    def is_silent(self, endpoint: str) -> bool:
        """Whether a worker or tokenizer that used to report says nothing any more."""


class Placement:
    """Places prompts and remembers what runs where.

    Args:
        rng: the source of chance; give a seeded one to replay.
        loads: what workers say about themselves.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        loads: "Loads | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rng = rng or random.Random()
        self._loads = loads
        self._clock = clock
        self._lost_in_a_row: dict[str, int] = {}
        self._left_alone_until: dict[str, float] = {}
        self._classes: dict[str, str] = {}
        self._running_choices: dict[str, int] = {}
        self._prefill_tokens: dict[str, int] = {}

    def choose(
        self,
        lane: Lane,
        prompt_tokens: int,
        cached_tokens: Mapping[str, int],
        avoid: Collection[str] = (),
        *,
        numerics_class: str = "",
    ) -> Worker:
        """The worker for a prompt. One that has fallen silent gets none.

        Args:
            lane: whose workers count.
            prompt_tokens: length of the prompt.
            cached_tokens: endpoint to positions of the prompt it holds; absent: none.
            avoid: endpoints that have failed this request.
            numerics_class: class of the worker that began the answer; workers known to be of another one come last.

        Raises:
            MeshError: NOT_READY, no worker is left.
        """
        able = self._able(lane, avoid)
        if not able:
            raise MeshError(
                Reason.NOT_READY, "no worker of this lane can take the request now", retry_after_s=RETRY_AFTER_S
            )
        now = self._clock()
        able = [w for w in able if self._left_alone_until.get(w.endpoint, now) <= now] or able
        if numerics_class:
            alike = [w for w in able if self._classes.get(w.endpoint, numerics_class) == numerics_class]
            able = alike or able
        costs = [(self.cost(worker, prompt_tokens - cached_tokens.get(worker.endpoint, 0)), worker) for worker in able]
        cheapest = min(cost for cost, _ in costs)
        nearly = cheapest + max(32.0, NEARLY * cheapest)
        return self._rng.choice([worker for cost, worker in costs if cost <= nearly])

    def can_choose(self, lane: Lane, avoid: Collection[str] = ()) -> bool:
        """Whether a lane has a worker for a prompt."""
        return bool(self._able(lane, avoid))

    def learn(self, worker: Worker, numerics_class: str) -> None:
        """A worker has begun a prompt: remember the class of its arithmetic, as it said itself."""
        if len(self._classes) >= MAX_KNOWN_CLASSES:  # endpoints come and go; what is forgotten is learned again
            self._classes.clear()
        self._classes[worker.endpoint] = numerics_class
        self._lost_in_a_row.pop(worker.endpoint, None)
        self._left_alone_until.pop(worker.endpoint, None)

    def lost(self, worker: Worker) -> None:
        """A worker let go of a prompt through no fault of the prompt's, and not because it has too much to do."""
        if len(self._lost_in_a_row) >= MAX_KNOWN_CLASSES:  # endpoints come and go
            self._lost_in_a_row.clear()
            self._left_alone_until.clear()
        num_lost = self._lost_in_a_row[worker.endpoint] = self._lost_in_a_row.get(worker.endpoint, 0) + 1
        if num_lost >= MAX_LOST_IN_A_ROW:
            self._left_alone_until[worker.endpoint] = self._clock() + LEFT_ALONE_S

    def is_silent(self, endpoint: str) -> bool:
        """Whether a worker or tokenizer that used to report says nothing any more; unknown is not silent."""
        return self._loads is not None and self._loads.is_silent(endpoint)

    def serves(self, model: ServedModel) -> bool:
        """Whether a request for a model would be answered now: on some lane a worker and a tokenizer still speak."""
        return any(
            lane.is_ready
            and lane.weight > 0
            and not all(self.is_silent(worker.endpoint) for worker in lane.workers)
            and not all(map(self.is_silent, lane.tokenizers))
            for lane in model.lanes
        )

    def cost(self, worker: Worker, uncached_tokens: int) -> float:
        """Tokens a worker would have before it and for it."""
        running = self.num_running(worker)
        waiting = self._prefill_tokens.get(worker.endpoint, 0)
        full = FULL_PENALTY_TOKENS if worker.max_sequences and running >= worker.max_sequences else 0
        return uncached_tokens + waiting + TOKENS_PER_RUNNING_CHOICE * running + full

    def num_running(self, worker: Worker) -> int:
        """Sequences on a worker, as far as is known: what this gateway placed there, and what others did."""
        running = self._running_choices.get(worker.endpoint, 0)
        return running if self._loads is None else max(running, self._loads.num_sequences(worker.endpoint))

    @contextmanager
    def running(self, worker: Worker, uncached_tokens: int, num_choices: int) -> Iterator["PlacedWork"]:
        """Count a prompt on a worker while the block runs."""
        work = PlacedWork(self, worker.endpoint, uncached_tokens)
        self._add(self._running_choices, worker.endpoint, num_choices)
        self._add(self._prefill_tokens, worker.endpoint, uncached_tokens)
        try:
            yield work
        finally:
            work.prefilled()
            self._add(self._running_choices, worker.endpoint, -num_choices)

    def _able(self, lane: Lane, avoid: Collection[str]) -> list[Worker]:
        return [one for one in lane.workers if one.endpoint not in avoid and not self.is_silent(one.endpoint)]

    @staticmethod
    def _add(counts: dict[str, int], endpoint: str, amount: int) -> None:
        left = counts.get(endpoint, 0) + amount
        if left > 0:
            counts[endpoint] = left
        else:
            counts.pop(endpoint, None)


class PlacedWork:
    """A prompt on a worker, until its prefill is done."""

    def __init__(self, placement: Placement, endpoint: str, uncached_tokens: int) -> None:
        self._placement = placement
        self._endpoint = endpoint
        self._uncached_tokens = uncached_tokens

    def prefilled(self) -> None:
        """The prompt has been computed: it no longer stands before others. Calling twice changes nothing."""
        Placement._add(self._placement._prefill_tokens, self._endpoint, -self._uncached_tokens)
        self._uncached_tokens = 0
