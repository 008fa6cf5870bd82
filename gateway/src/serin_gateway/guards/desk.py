"""Guards as a request meets them: its policy, its input before anything is done with it, its answers as they come.

Detectors of a policy are made once. What takes more than a moment is looked at in threads, a few at a time, for no
longer than the request has. Knows nothing about doors, or who hears of decisions.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import Ask, refuse
from serin_gateway.guards.answers import AnswerGuard
from serin_gateway.guards.block_list import BlockList
from serin_gateway.guards.credentials import Secrets
from serin_gateway.guards.decisions import Decisions
from serin_gateway.guards.detector import Detector, DetectorFailed, DetectorName, Unavailable
from serin_gateway.guards.failures import content_refused, guard_unavailable, too_many_waiting
from serin_gateway.guards.folding import Folded
from serin_gateway.guards.injection import Injection
from serin_gateway.guards.inputs import guarded_ask, num_characters
from serin_gateway.guards.personal_data import PersonalData
from serin_gateway.guards.policy import Direction, GuardPolicy
from serin_gateway.guards.screen import GuardFailed, Rule, Screen, screened
from serin_gateway.guards.unicode_tricks import UnicodeTricks

T = TypeVar("T")

INLINE_CHARACTERS = 1024
"""No more is looked at in the event loop at once."""
NUM_THREADS = 2
MAX_WAITING = 64
"""Texts that may wait for a thread; more are not looked at, and their requests fail as where a detector failed."""
MAX_POLICIES = 256
"""Policies whose detectors are kept."""

Detectors = Mapping[DetectorName, Detector]
Make = Callable[[GuardPolicy, DetectorName], Detector]


def make_detector(policy: GuardPolicy, name: DetectorName) -> Detector:
    """A detector as a policy wants it.

    Raises:
        DetectorFailed: what it needs is not there.
    """
    match name:
        case DetectorName.PII:
            return Folded(PersonalData(policy.countries))
        case DetectorName.SECRETS:
            return Folded(Secrets())
        case DetectorName.BLOCKED:
            return Folded(BlockList(policy.terms))
        case DetectorName.INJECTION:
            return Folded(Injection())
        case DetectorName.UNICODE:
            return UnicodeTricks()
        case DetectorName.UNKNOWN:
            raise DetectorFailed("this gateway does not know it; it is older than the control plane")


class Guards:
    """Guards of all requests.

    Args:
        make: makes a detector; another one for tests.
    """

    def __init__(self, make: Make = make_detector) -> None:
        self._make = make
        self._made: OrderedDict[GuardPolicy, Detectors] = OrderedDict()
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="guards")
        self._num_waiting = 0

    def watch(self, policy: GuardPolicy | None, deadline: float, *, shows_ids: bool = False) -> "Watch | None":
        """What looks at one request; None: nothing does.

        Args:
            policy: what is looked for.
            deadline: when nobody waits any more, monotonic seconds.
            shows_ids: its door shows ids whether its caller asks for them or not.
        """
        return None if policy is None else Watch(self, policy, deadline, shows_ids=shows_ids)

    async def ready(self, policy: GuardPolicy) -> Detectors:
        """The detectors of a policy, made where they are not yet; one that cannot be made says so when it is asked."""
        found = self._made.get(policy)
        if found is None:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._make_all, policy)
            self._made[policy] = found
            while len(self._made) > MAX_POLICIES:
                self._made.popitem(last=False)
        self._made.move_to_end(policy)
        return found

    async def run(self, num_characters: int, work: Callable[[Callable[[], bool]], T]) -> T:
        """Have work done that looks at so many characters; it asks the function it is given whether to stop.

        Raises:
            MeshError: GUARD_UNAVAILABLE, too much waits already.
        """
        if num_characters <= INLINE_CHARACTERS:
            return work(lambda: False)
        if self._num_waiting >= MAX_WAITING:
            raise too_many_waiting()
        stopped = threading.Event()
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, stopped.is_set))
        finally:
            self._num_waiting -= 1
            stopped.set()

    def close(self) -> None:
        """Wait for the threads; whoever asked has gone."""
        self._threads.shutdown(cancel_futures=True)

    def _make_all(self, policy: GuardPolicy) -> Detectors:
        detectors: dict[DetectorName, Detector] = {}
        for name in policy.detectors:
            try:
                detectors[name] = self._make(policy, name)
            except DetectorFailed as error:
                detectors[name] = Unavailable(str(error))
            except Exception as error:  # noqa: BLE001 - a library that does not load
                detectors[name] = Unavailable(f"it cannot be loaded: {type(error).__name__}")
        return detectors


class Watch:
    """Looks at one request.

    Args:
        guards: whose it is.
        policy: what is looked for.
        deadline: when nobody waits any more, monotonic seconds.
        shows_ids: its door shows ids whether its caller asks for them or not; then they are left out where they must.

    Attributes:
        decisions: what was decided so far.
    """

    def __init__(self, guards: Guards, policy: GuardPolicy, deadline: float, *, shows_ids: bool = False) -> None:
        self._shows_ids = shows_ids
        self.decisions = Decisions(policy.name)
        self._guards = guards
        self._policy = policy
        self._deadline = deadline
        self._detectors: Detectors = {}

    @property
    def may_change_input(self) -> bool:
        """Whether what is asked may go on otherwise than it was said, or not at all."""
        return self._holds(Direction.INPUT)

    async def inspect(self, ask: Ask) -> Ask:
        """The ask as it may go on.

        Raises:
            MeshError: CONTENT_REFUSED; GUARD_UNAVAILABLE, a detector whose action is mask or refuse could not look;
                PARAMETER_UNSUPPORTED, it asks for what guards cannot look at; DEADLINE_EXCEEDED.
        """
        if self._holds(Direction.OUTPUT):
            ask = replace(ask, want_token_ids=ask.want_token_ids and not self._shows_ids)
            _check_output(ask, self._policy.name)

        async def looked() -> Ask:
            self._detectors = await self._guards.ready(self._policy)
            if not self._policy.inputs:
                return ask
            return await self._guards.run(num_characters(ask), lambda is_stopped: self._look(ask, is_stopped))

        return await self._in_time(looked())

    async def echo(self, text: str) -> str:
        """A prompt that its caller wants to see before the answer: to guards of the output it is one.

        Raises:
            MeshError: as of :meth:`inspect`.
        """
        if not text or not self._policy.outputs:
            return text

        def look(is_stopped: Callable[[], bool]) -> str:
            screen = self._screen(Direction.OUTPUT, is_stopped)
            passed = screened(screen, text)
            if screen.refusal is not None:
                raise content_refused("echo", screen.refusal)
            return passed

        return await self._in_time(self._guards.run(len(text), look))

    def answer(self) -> AnswerGuard | None:
        """What looks at one choice of an answer; None: nothing does."""
        return AnswerGuard(partial(self._screen, Direction.OUTPUT)) if self._policy.outputs else None

    def _look(self, ask: Ask, is_stopped: Callable[[], bool]) -> Ask:
        screen = partial(self._screen, Direction.INPUT, is_stopped)
        return guarded_ask(ask, screen, holds=self._holds(Direction.INPUT))

    def _screen(self, direction: Direction, is_stopped: Callable[[], bool] = lambda: False) -> Screen:
        return Screen(self._rules(direction), direction, self.decisions, is_stopped)

    def _rules(self, direction: Direction) -> Sequence[Rule]:
        return [Rule(name, self._detectors[name], action) for name, action in self._policy.rules(direction)]

    def _holds(self, direction: Direction) -> bool:
        return any(action.holds for _, action in self._policy.rules(direction))

    async def _in_time(self, looking: Coroutine[object, object, T]) -> T:
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                return await looking
        except TimeoutError:
            raise MeshError(Reason.DEADLINE_EXCEEDED, "guards were not done in the time that the request had") from None
        except GuardFailed as failed:
            raise guard_unavailable(failed) from failed


def _check_output(ask: Ask, policy: str) -> None:
    """What tells an answer token by token cannot be looked at before it is whole.

    Raises:
        MeshError: PARAMETER_UNSUPPORTED.
    """
    for name, is_wanted in (
        ("logprobs", ask.sampling.top_logprobs is not None),
        ("return_token_ids", ask.want_token_ids),
    ):
        if is_wanted:
            why = f"not supported where guards may change the answer (policy {policy!r}): it would show what they mask"
            raise refuse(name, why, Reason.PARAMETER_UNSUPPORTED)
