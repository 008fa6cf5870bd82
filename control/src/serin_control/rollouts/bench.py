"""The arbiters of all running rollouts, and what they hear: the :class:`serin_control.rollouts.intake.Intake`.

Knows nothing about steps, stores or who leads: whoever leads calls arbiters up and dismisses them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from serin_control.errors import JudgeUnreadable
from serin_control.instance import LANE_SERVICES, Service
from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.verdict import Decision
from serin_control.rollouts.arbiter import Arbiter, Court
from serin_control.rollouts.intake import RunningTrial
from serin_control.rollouts.meter import Meter
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.sight import service_lane

T = TypeVar("T")
S = TypeVar("S", Beginning, Observation)


@dataclass(slots=True)
class _Seat:
    rollout: Rollout
    arbiter: Arbiter
    golden: str
    num_heard: int = 0
    num_kept: int = 0
    fault: str = ""

    def ask(self, question: Callable[[], T]) -> T | None:
        """Ask the arbiter; one that fails is asked nothing more, and takes nobody along."""
        if self.fault:
            return None
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a judge, the mesh is served on
            self.fault = f"{type(error).__name__}: {error}"
            return None


@dataclass(frozen=True, slots=True)
class News:
    """What an arbiter knows after it was told so many things."""

    num_heard: int
    known: Mapping[str, Any]


class Bench:
    """Arbiters by model."""

    def __init__(
        self, court: Court, clock: Callable[[], float], version_of: Callable[[str], str] = lambda instance: ""
    ) -> None:
        self.meter = Meter(clock)
        self._version_of = version_of
        self._court = court
        self._seats: dict[str, _Seat] = {}

    def has(self, rollout: Rollout) -> bool:
        """Whether a rollout has its arbiter, of the lanes that it compares."""
        seat = self._seats.get(rollout.model)
        return seat is not None and _compared(seat.rollout) == _compared(rollout)

    def call_up(self, rollout: Rollout, kept: Mapping[str, Any] | None, golden: str) -> str:
        """Have a rollout judged from now on, going on from what its arbiter of other lanes knows, or what was kept.

        Returns why what was kept cannot be read, so that it begins anew; empty: it could.
        """
        lost, before = "", self._seats.get(rollout.model)
        if before is not None and before.rollout.id == rollout.id:
            kept = before.ask(before.arbiter.dump) or kept
        try:
            arbiter = self._court.appoint(rollout, kept)
        except JudgeUnreadable as error:
            lost, arbiter = str(error), self._court.appoint(rollout, None)
        self._seats[rollout.model] = _Seat(rollout, arbiter, golden)
        return lost

    def dismiss(self, models: Sequence[str]) -> None:
        """These are judged no more."""
        for model in models:
            self._seats.pop(model, None)

    @property
    def models(self) -> list[str]:
        """Models that are judged."""
        return list(self._seats)

    def decision(self, rollout: Rollout) -> Decision | None:
        """What is known of a rollout; None: it has no arbiter, or one that has heard nothing."""
        if not self.has(rollout):
            return None
        seat = self._seats[rollout.model]
        return seat.ask(seat.arbiter.decision)

    def faults(self) -> Mapping[str, str]:
        """What went wrong in judges, by model."""
        return {model: seat.fault for model, seat in self._seats.items() if seat.fault}

    def news(self, model: str) -> News | None:
        """What an arbiter knows, if it has heard something that is not kept yet."""
        seat = self._seats.get(model)
        if seat is None or seat.num_heard == seat.num_kept:
            return None
        known = seat.ask(seat.arbiter.dump)
        return None if known is None else News(seat.num_heard, known)

    def kept(self, model: str, news: News) -> None:
        """These news outlive this process."""
        if model in self._seats:
            self._seats[model].num_kept = news.num_heard

    def running(self) -> Sequence[RunningTrial]:
        """Comparisons that run, by model."""
        return [
            RunningTrial(seat.rollout.id, model, seat.rollout.stable_lane, seat.rollout.canary_lane, seat.golden)
            for model, seat in sorted(self._seats.items())
            if seat.rollout.spec.service in LANE_SERVICES
        ]

    def begin(self, model: str, beginning: Beginning, gateway: str = "") -> None:
        """One attempt of a request has begun."""
        seat = self._seats.get(model)
        begun = self._on_its_arm(seat, beginning, gateway)
        self._tell(seat, lambda arbiter: arbiter.begin(begun))

    def observe(self, model: str, observation: Observation, gateway: str = "") -> None:
        """One attempt of a request has ended."""
        self.meter.note(model, observation.session)
        seat = self._seats.get(model)
        ended = self._on_its_arm(seat, observation, gateway)
        self._tell(seat, lambda arbiter: arbiter.observe(ended))

    def leave_out(self, model: str, since: float, until: float) -> None:
        """What a model's canary is compared with could take no calls in this time, seconds since 1970."""
        self._tell(self._seats.get(model), lambda arbiter: arbiter.leave_out(since, until))

    def score(self, model: str, score: ShadowScore) -> None:
        """One text was scored on two lanes."""
        self._tell(self._seats.get(model), lambda arbiter: arbiter.score(score))

    def golden(self, model: str, result: GoldenResult) -> None:
        """One golden question was asked on both lanes."""
        self._tell(self._seats.get(model), lambda arbiter: arbiter.golden(result))

    def feedback(self, model: str, feedback: Feedback) -> None:
        """A caller said what an answer was worth."""
        self._tell(self._seats.get(model), lambda arbiter: arbiter.feedback(feedback))

    def memory(self, model: str, sample: ProcessMemory) -> None:
        """A worker process said how much memory it holds."""
        self._tell(self._seats.get(model), lambda arbiter: arbiter.memory(sample))

    def _on_its_arm(self, seat: _Seat | None, seen: S, gateway: str) -> S:
        """An attempt as it counts: where gateways are compared, which one served it is its lane."""
        if seat is None or seat.rollout.spec.service is not Service.GATEWAY:
            return seen
        return replace(seen, lane=service_lane(Service.GATEWAY, self._version_of(gateway)))

    def _tell(self, seat: _Seat | None, what: Callable[[Arbiter], None]) -> None:
        if seat is not None:
            seat.num_heard += 1
            seat.ask(lambda: what(seat.arbiter))


def _compared(rollout: Rollout) -> tuple[str, str, str]:
    return rollout.id, rollout.stable_lane, rollout.canary_lane
