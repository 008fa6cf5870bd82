"""Which ids a step's choices may draw, found while the model computes their logits.

A grammar that takes too long costs its own request: the others wait for it once, for at most the budget. Knows nothing
about schedules or sampling.
"""

import queue
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray

from serin_worker.errors import GrammarOverrun
from serin_worker.grammars.constraint import Constraint

BUDGET_S = 0.1
"""Processor time that one mask may take, once the model is done; usual ones take 0.1 ms."""
LONGEST_S = 2.0
"""Seconds on the clock that it may take, where a thread's processor time cannot be read or it gets none."""
_GLANCE_S = 0.01


@dataclass(frozen=True, slots=True)
class MaskOrder:
    """Whose mask is wanted.

    Attributes:
        constraint: what the choice may say.
        early_ids: ids that may not be drawn yet, unless nothing else may be.
        never_ids: ids that may not be drawn in any case.
    """

    constraint: Constraint
    early_ids: Collection[int] = ()
    never_ids: Collection[int] = ()


Mask = torch.Tensor
"""Forbidden ids, true or false [ids], on the CPU."""
Outcome = Mask | GrammarOverrun | None
"""None: nothing can follow, the choice is complete."""


class MaskMaker:
    """Makes masks in a thread of its own, which starts with the first order."""

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self.budget_s = budget_s
        self._thread: MaskThread | None = None

    def begin(self, orders: Sequence[MaskOrder]) -> "MaskJob":
        """Begin; collect the masks when they are needed."""
        return MaskJob(self, orders)

    def start(self, run: "MaskRun") -> None:
        """Have the thread do this next."""
        if self._thread is None:
            self._thread = MaskThread()
        self._thread.put(run)

    def leave_thread(self) -> None:
        """A thread cannot be stopped: it ends by itself when what holds it does, and another one takes over."""
        if self._thread is not None:
            self._thread.put(None)
            self._thread = None


class MaskThread:
    """Does one run after the other; does not keep the process from ending."""

    def __init__(self) -> None:
        self._runs: queue.SimpleQueue[MaskRun | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="serin-masks", daemon=True).start()

    def put(self, run: "MaskRun | None") -> None:
        """Do this when all before it is done; None: end."""
        self._runs.put(run)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            run.do()
            del run  # what it was made for may end now


class MaskJob:
    """The masks of one step."""

    def __init__(self, maker: MaskMaker, orders: Sequence[MaskOrder]) -> None:
        self._maker = maker
        self._run = MaskRun(orders)
        maker.start(self._run)

    def collect(self) -> list[Outcome]:
        """One for each order, in order; waits for them, for each no longer than the budget.

        Raises:
            Exception: whatever making them ended in, beside overruns.
        """
        budget_s = self._maker.budget_s
        outcomes: list[Outcome] = []
        while not self._run.is_over.wait(_GLANCE_S):
            run = self._run
            if run.let_go(budget_s):
                outcomes += [*run.outcomes, GrammarOverrun(f"a step of it takes more than {budget_s:g} s")]
                self._maker.leave_thread()
                self._run = MaskRun(run.orders[len(run.outcomes) + 1 :])
                self._maker.start(self._run)
        if self._run.failure is not None:
            raise self._run.failure
        return outcomes + self._run.outcomes


class MaskRun:
    """Masks made one after the other; it may be let go of in the middle, and then changes nothing any more."""

    def __init__(self, orders: Sequence[MaskOrder]) -> None:
        self.orders = orders
        self.outcomes: list[Outcome] = []
        self._lock = threading.Lock()
        self._is_let_go = False
        self._thread: int | None = None
        self._began_cpu_s = 0.0
        self._began_at = time.monotonic()
        self.is_over = threading.Event()
        self.failure: Exception | None = None

    def do(self) -> None:
        """Make them all, in the thread that calls it."""
        try:
            self._make()
        except Exception as error:  # noqa: BLE001 - carried to the engine, which must not wait for ever
            self.failure = error
        self.is_over.set()

    def _make(self) -> None:
        self._thread = threading.get_ident()
        for order in self.orders:
            with self._lock:
                self._began_cpu_s, self._began_at = time.thread_time(), time.monotonic()
            try:
                outcome = _mask(order)
            except GrammarOverrun as error:
                outcome = error
            with self._lock:
                if self._is_let_go:
                    return
                self.outcomes.append(outcome)

    def let_go(self, budget_s: float) -> bool:
        """Whether the mask at work has used up its budget: then nothing more comes of this run."""
        with self._lock:
            if len(self.outcomes) == len(self.orders):
                return False
            self._is_let_go = self._spent_s() > budget_s or time.monotonic() - self._began_at > LONGEST_S
            return self._is_let_go

    def _spent_s(self) -> float:
        """Processor time of the mask at work: other work on the machine does not count."""
        if self._thread is None or not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread)) - self._began_cpu_s


def _mask(order: MaskOrder) -> Outcome:
    allowed = order.constraint.allowed()
    if order.never_ids:
        allowed[list(order.never_ids)] = False
    if order.early_ids:
        later = allowed.copy()
        later[list(order.early_ids)] = False
        if later.any():
            allowed = later
    return _forbidden(allowed) if allowed.any() else None


def _forbidden(allowed: NDArray[numpy.bool_]) -> Mask:
    return torch.from_numpy(~allowed)
