"""What people ask of rollouts: start, act, go back, freeze, plan, look.

Checks what is asked, writes it through the engine, and answers. Whoever does not lead answers questions only. Knows
nothing about gRPC.
"""

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from serin_control.errors import RolloutConflict, RolloutInvalid, RolloutNotFound, RolloutsFrozen
from serin_control.instance import Instance, Service
from serin_control.lanes import WEIGHT_SUM
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts import machine
from serin_control.rollouts.act import Act, Actor
from serin_control.rollouts.arbiter import Forecast
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.going_back import PathOf, lane_of, target
from serin_control.rollouts.golden_set import GoldenInvalid, parse_golden
from serin_control.rollouts.machine import Move
from serin_control.rollouts.rollout import Rollout, Strength
from serin_control.rollouts.sight import Sight, arms_for, look, strength
from serin_control.rollouts.spec import Intent, Spec, Step, check_spec
from serin_control.rollouts.standing import Standing, effective, named
from serin_control.rollouts.steering import steered
from serin_control.rollouts.store import Change

MAX_PAGE = 1_000
NO_REASON = "no reason given"


class Action(enum.StrEnum):
    """What a person can do to a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Returned:
    """Where a model's traffic is after a rollback."""

    version: str
    lane: str


class Desk:
    """Answers people.

    Args:
        engine: what carries it out.
        has_edge: whether Envoy splits the gateways' traffic.
        path_of: where the files of a version of a model are, as far as the configuration says; empty: unknown.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        has_edge: Callable[[], bool] = lambda: False,
        path_of: PathOf = lambda model, version: "",
    ) -> None:
        self._engine = engine
        self._has_edge = has_edge
        self._path_of = path_of

    async def start(self, spec: Spec, golden: str, actor: Actor) -> Rollout:
        """Start a rollout.

        Raises:
            RolloutInvalid: it cannot be meant.
            RolloutConflict: the model has one already.
            RolloutsFrozen: nothing may start.
            NotLeading, StoreDown: nothing was started.
        """
        engine = self._engine
        async with engine.lock:
            engine.leadership.require()
            self._check_thawed("start")
            plan = self._plan(spec.model)
            running = engine.book.rollouts.get(spec.model)
            if running is not None:
                raise RolloutConflict(
                    f"{running.id} of {spec.model} is {running.state} at {running.percent}: one rollout of a model at "
                    f"a time; wait for it, or `serin rollout abort {running.id}`"
                )
            rollout = await self._begin(spec, golden, actor, plan)
            standing = engine.book.standings.get(spec.model)
            anew = standing.using([rollout.arms.canary]) if standing else None
            act = Act(rollout.started_at, rollout.id, actor.shown, "start", _asked(rollout), actor.identity)
            await engine.write(Change((act,), rollout, anew if anew != standing else None, golden=golden))
        engine.hurry()
        return rollout

    async def act(self, rollout_id: str, action: Action, actor: Actor, why: str) -> Move:
        """Do something to a rollout.

        Raises:
            RolloutNotFound: there is none of that name.
            RolloutsFrozen: it may not move on.
            NotLeading, StoreDown: nothing was done.
        """
        engine = self._engine
        async with engine.lock:
            engine.leadership.require()
            rollout = self._running(rollout_id) or await self._stored(rollout_id)
            if action in (Action.RESUME, Action.PROMOTE) and not rollout.ended:
                self._check_thawed(action)
            move = self._moved(rollout, action, actor, why)
            if move.effective:
                await engine.carry_out(move, actor.shown, actor.identity)
        engine.hurry()
        return move

    async def rollback(self, model: str, to_version: str, actor: Actor, why: str) -> Returned:
        """Give a model's traffic back at once: to what it had before, or to a version that still runs.

        Raises:
            RolloutInvalid: there is no such model, or nothing to go back to.
            VersionGone: it runs no more; the message says what brings it back.
            NotLeading, StoreDown: nothing was done.
        """
        engine = self._engine
        async with engine.lock:
            engine.leadership.require()
            plan = self._plan(model)
            running = engine.book.rollouts.get(model)
            if running is not None:
                said = f"rolled back by {actor.shown}: {why or NO_REASON}"
                await engine.carry_out(
                    machine.take_back(running, said, engine.wall_clock()), actor.shown, actor.identity
                )
                if not to_version:
                    return self._returned(model, (Share(running.arms.canary, WEIGHT_SUM),), running.arms.stable)
            standing = engine.book.standings.get(model) or Standing(model, effective(plan.shares))
            now = effective(steered(plan, standing, None).shares)
            back = target(model, to_version, standing, now, engine.mesh.instances(), self._path_of)
            if back != now:
                moved = replace(standing, declared=effective(plan.shares)).moved_to(back, now, engine.wall_clock())
                what = f"{model}: {named(now[0].versions)} -> {named(back[0].versions)}: {why or NO_REASON}"
                last = Act(engine.wall_clock(), "", actor.shown, "rollback", what, actor.identity)
                await engine.write(Change((last,), None, moved))
            return self._returned(model, now, back)

    async def freeze(self, frozen: bool, actor: Actor, why: str) -> bool:
        """Forbid rollouts to start or move on, or allow it again; returns whether that changed anything.

        Raises:
            NotLeading, StoreDown: nothing was done.
        """
        engine = self._engine
        async with engine.lock:
            engine.leadership.require()
            if bool(engine.book.frozen) == frozen:
                return False
            what = "freeze" if frozen else "unfreeze"
            act = Act(engine.wall_clock(), "", actor.shown, what, why, actor.identity)
            await engine.write(Change((act,), frozen=f"{why or NO_REASON} ({actor.shown})" if frozen else ""))
        engine.hurry()
        return True

    def forecast(self, spec: Spec, sessions_per_s: float) -> tuple[list[tuple[Step, Forecast]], float]:
        """What each step of a rollout would need, and the rate that was reckoned with; 0: as observed.

        Raises:
            RolloutInvalid: it cannot be meant, or no rate is given and nothing was observed.
        """
        check_spec(spec, self._engine.court.metrics)
        rate = self._engine.bench.meter.rate(spec.model)
        reckoned = sessions_per_s or rate.sessions_per_s
        if not reckoned:
            raise RolloutInvalid("rate: no traffic was observed yet: accepted: new sessions a second, --rate 2/s")
        found: list[tuple[Step, Forecast]] = []
        for step in spec.steps:
            told = self._forecast(spec, step, reckoned) if step.weight < WEIGHT_SUM else None
            if told is not None:
                found.append((step, told))
        return found, reckoned

    async def get(self, rollout_id: str) -> Rollout:
        """A rollout as it is now.

        Raises:
            RolloutNotFound: there is none of that name.
        """
        engine = self._engine
        live = self._running(rollout_id) if engine.leadership.leads else None
        return live or await self._stored(rollout_id)

    async def page(self, model: str, size: int, after: str) -> tuple[list[Rollout], str]:
        """Rollouts, newest first, and where the page ended."""
        found, more = await self._engine.store.rollouts(model, min(size, MAX_PAGE), after)
        return [(self._running(one.id) or one) for one in found], more

    async def history(self, rollout_id: str, size: int, after: str) -> tuple[list[Act], str]:
        """Who did what, newest first, and where the page ended."""
        return await self._engine.store.acts(rollout_id, min(size, MAX_PAGE), after)

    async def watch(self, rollout_id: str) -> AsyncIterator[Rollout]:
        """A rollout now and after each change, until it has ended.

        Raises:
            RolloutNotFound: there is none of that name.
        """
        last: Rollout | None = None
        while True:
            seen = self._engine.looks.version
            now = await self.get(rollout_id)
            if now != last:
                yield now
                last = now
            if now.ended:
                return
            await self._engine.looks.after(seen)

    async def _begin(self, spec: Spec, golden: str, actor: Actor, plan: ModelPlan) -> Rollout:
        """A rollout that may be started."""
        engine = self._engine
        check_spec(spec, engine.court.metrics)
        engine.court.check(spec)
        if spec.service is Service.GATEWAY and not self._has_edge():
            raise RolloutInvalid("service: a gateway rollout is split by Envoy: accepted: with `serin up --edge` only")
        if golden:
            try:
                parse_golden(golden)
            except GoldenInvalid as error:
                raise RolloutInvalid(str(error.problems[0])) from error
        instances = engine.mesh.instances()
        shares = effective(steered(plan, engine.book.standings.get(spec.model), None).shares)
        arms = arms_for(spec, shares, instances)
        self._check_sight(spec, look(spec, arms, instances))
        self._check_weak(spec)
        before = dict(arms.stable[0].versions)
        return Rollout(
            id=f"{spec.model}-{await engine.store.next_number()}",
            spec=spec,
            arms=arms,
            from_version=before[spec.service],
            started_at=engine.wall_clock(),
            started_by=actor.shown,
            capacity=self._capacity(spec, arms.stable, instances),
            changed_at=engine.wall_clock(),
            reason="started",
        )

    def _moved(self, rollout: Rollout, action: Action, actor: Actor, why: str) -> Move:
        now, said = self._engine.wall_clock(), f"{actor.shown}: {why or NO_REASON}"
        match action:
            case Action.PAUSE:
                return machine.pause(rollout, said, now)
            case Action.RESUME:
                return machine.resume(rollout, now)
            case Action.PROMOTE:
                return machine.promote(rollout, self._engine.sight(rollout), f"by {said}", now)
            case Action.ABORT:
                return machine.take_back(rollout, f"by {said}", now)

    def _check_thawed(self, doing: str) -> None:
        frozen = self._engine.book.frozen
        if frozen:
            raise RolloutsFrozen(f"rollouts are frozen, none may {doing}: {frozen}; `serin freeze --off` ends it")

    def _check_sight(self, spec: Spec, seen: Sight) -> None:
        if seen.wrong:
            hint = f"; move both: --also {_other(spec.service)}" if not spec.also else ""
            raise RolloutInvalid(f"to_version: {spec.to_version!r}: {seen.wrong}: they can form no lane{hint}")
        if spec.intent is Intent.SAME and seen.same_vocabulary is False:
            raise RolloutInvalid(
                f"intent: same: {spec.to_version} holds another vocabulary: its answers cannot be compared token by "
                "token; accepted: better"
            )

    def _check_weak(self, spec: Spec) -> None:
        """Refuse a tolerance that the traffic cannot show; without any traffic yet nobody can tell."""
        rate = self._engine.bench.meter.rate(spec.model).sessions_per_s
        judged = [step for step in spec.steps if step.weight < WEIGHT_SUM]
        if spec.accept_weak or not spec.tolerances or not rate or not judged:
            return
        best = self._forecast(spec, max(judged, key=lambda step: step.weight * step.max_s), rate)
        if best is None:
            return
        for metric, tolerance in spec.tolerances.items():
            least = best.detectable.get(metric, 0.0)
            if tolerance < least:
                raise RolloutInvalid(
                    f"tolerances.{metric}: {tolerance:g}: accepted: at least {least:.2g}, the smallest change that "
                    f"{rate:.2g} new sessions/s can show in a step, or --accept-weak"
                )

    def _forecast(self, spec: Spec, step: Step, sessions_per_s: float) -> Forecast | None:
        each = self._engine.bench.meter.rate(spec.model).requests_per_session
        return self._engine.court.forecast(spec, step, sessions_per_s, each)

    def _capacity(self, spec: Spec, stable: Sequence[Share], instances: Sequence[Instance]) -> dict[Service, Strength]:
        """What the old versions bear together, by service that moves."""
        found: dict[Service, Strength] = {}
        for service in spec.moved:
            each = [
                strength(spec.model, service, version, instances)
                for version in {dict(share.versions)[service] for share in stable}
            ]
            found[service] = Strength(sum(one.num_instances for one in each), sum(one.units for one in each))
        return found

    def _plan(self, model: str) -> ModelPlan:
        plans = self._engine.mesh.declared().models
        if model not in plans:
            raise RolloutInvalid(f"model: {model!r}: no such model: accepted: {', '.join(sorted(plans)) or 'none'}")
        return plans[model]

    def _running(self, rollout_id: str) -> Rollout | None:
        return next((one for one in self._engine.book.rollouts.values() if one.id == rollout_id), None)

    async def _stored(self, rollout_id: str) -> Rollout:
        found = await self._engine.store.rollout(rollout_id)
        if found is None:
            raise RolloutNotFound(f"no rollout {rollout_id!r}; `serin rollout list` shows them")
        return found

    def _returned(self, model: str, old: tuple[Share, ...], new: tuple[Share, ...]) -> Returned:
        """Where the traffic is now: the version that differs from before, else the worker's."""
        before = dict(old[0].versions)
        versions = new[0].versions
        changed = [version for service, version in versions if before.get(service) != version]
        lane = lane_of(model, versions, self._engine.mesh.instances())
        return Returned((changed or [version for _, version in versions])[-1], lane.id if lane else "")


def _asked(rollout: Rollout) -> str:
    """What was started, for the history."""
    spec = rollout.spec
    services = "+".join(map(str, spec.moved))
    steps = ", ".join(step.percent for step in spec.steps)
    return f"{spec.model}: {services} {rollout.from_version} -> {spec.to_version}, intent {spec.intent}, {steps}"


def _other(service: Service) -> Service:
    return Service.TOKENIZER if service is Service.WORKER else Service.WORKER
