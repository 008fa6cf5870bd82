"""What people ask of rollouts: start, act, go back, freeze, plan, look.

Checks what is asked, writes it through the engine, and answers. Whoever does not lead answers questions only. Knows
nothing about gRPC.
"""

import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Literal

from serin_control.errors import (
    RolloutConflict,
    RolloutInvalid,
    RolloutNotFound,
    RolloutsFrozen,
    StoreDown,
)
from serin_control.instance import Service
from serin_control.plan import ModelPlan
from serin_control.rollouts import machine, words
from serin_control.rollouts.act import Act, Actor
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.machine import Move
from serin_control.rollouts.returning import Returned, Returning
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.spec import Spec
from serin_control.rollouts.starting import STARTED, Prospect, Starting
from serin_control.rollouts.store import Change

MAX_PAGE = 1_000
NO_REASON = "no reason given"


class Action(enum.StrEnum):
    """What a person can do to a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


Onward = Literal[Action.PAUSE, Action.RESUME, Action.PROMOTE]
"""What needs the store first."""


class Desk:
    """Answers people.

    Args:
        engine: what carries it out.
        has_edge: whether Envoy splits the gateways' traffic.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        has_edge: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._starting = Starting(engine, has_edge)
        self._returning = Returning(engine, self._taken_back)

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
            rivals = [one for one in engine.book.rollouts.values() if one.spec.scope == spec.scope]
            running = engine.book.rollouts.get(spec.model) or next(iter(rivals), None)
            if running is not None:
                raise RolloutConflict(
                    f"{running.id} of {spec.model} is {running.state} at {running.percent}: one rollout of a model at "
                    f"a time; wait for it, or `serin rollout abort {running.id}`"
                )
            rollout = await self._starting.begin(spec, golden, actor, plan)
            # First what runs: a control plane that dies now and comes back must not take the new version for gone.
            await engine.mesh.save()
            standing = engine.book.standings.get(spec.scope)
            anew = standing.using([rollout.arms.canary]) if standing else None
            act = Act(rollout.started_at, rollout.id, actor.shown, "start", _asked(rollout), actor.identity)
            await engine.write(Change((act,), rollout, anew if anew != standing else None, golden=golden))
        engine.hurry()
        return rollout

    async def act(self, rollout_id: str, action: Action, actor: Actor, why: str) -> Move:
        """Do something to a rollout. An abort counts at once, here, before the store knows it.

        Raises:
            RolloutNotFound: there is none of that name.
            RolloutsFrozen: it may not move on.
            NotLeading, StoreDown: nothing was done.
        """
        engine = self._engine
        if action is Action.ABORT:
            move = await self._abort(rollout_id, actor, why or NO_REASON)
        else:
            async with engine.lock:
                move = await self._act(rollout_id, action, actor, why or NO_REASON)
        engine.hurry()
        return move

    def is_written(self, rollout_id: str) -> bool:
        """Whether state Redis knows what was done to a rollout; else this process must live until it does."""
        return self._engine.is_written(rollout_id)

    async def rollback(
        self, model: str, to_version: str, actor: Actor, why: str, service: Service | None = None
    ) -> Returned:
        """Give a model's traffic back at once: to what it had before, or to a version that still runs.

        With a service that all models share, it is that service's calls that go back; without any, the model's rollout
        that runs is taken back, whatever it moves, else the model's lanes go back. No judge is asked, and nobody
        for confirmation: where nothing shows that a version had the traffic before, that is said and written down.

        Raises:
            RolloutInvalid: there is no such model, or nothing to go back to.
            VersionGone: it runs no more; the message says what brings it back. A rollout that ran was taken back.
            NotLeading: nothing was done.
            StoreDown: nothing was done but to take a rollout back that ran; the message says so.
        """
        self._check_heard()
        return await self._returning.go_back(self._plan(model), to_version, actor, why or NO_REASON, service)

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

    async def suspend(self) -> None:
        """The whole mesh is being stopped in order; see :meth:`serin_control.rollouts.engine.Engine.suspend`."""
        await self._engine.suspend()

    def forecast(self, spec: Spec, sessions_per_s: float, golden: str = "") -> Prospect:
        """What a rollout would need at a rate of new sessions; 0: as observed. Its version need not run yet.

        Raises:
            RolloutInvalid: it cannot be meant, or no rate is given and nothing was observed.
        """
        return self._starting.forecast(spec, sessions_per_s, golden, self._plan(spec.model))

    async def get(self, rollout_id: str) -> Rollout:
        """A rollout as it is now; where the store does not answer, as this process knows it, which its reason says.

        Raises:
            RolloutNotFound: there is none of that name.
            StoreDown: the store does not answer, and it does not run as far as is known here.
        """
        live = self._live(rollout_id)
        if live is not None:
            return live
        try:
            return await self._stored(rollout_id)
        except StoreDown:
            held = self._held(rollout_id)
            if held is None:
                raise
            return held

    async def page(self, model: str, size: int, after: str) -> tuple[list[Rollout], str]:
        """Rollouts, newest first, and where the page ended; one that is declared no more has those it had.

        Where the store does not answer: those that run, as this process knows them.

        Raises:
            RolloutInvalid: there is no such model, and never was one that moved.
            StoreDown: the store does not answer, and none runs as far as is known here.
        """
        held = [] if after else self._all_held(model)[:size]
        if held and self._engine.is_cut_off:
            return held, ""
        try:
            found, more = await self._engine.past(model, min(size, MAX_PAGE), after)
        except StoreDown:
            if not held:
                raise
            return held, ""
        if model and not found and not after:
            self._plan(model)
        return [(self._live(one.id) or one) for one in found], more

    async def history(self, rollout_id: str, size: int, after: str) -> tuple[list[Act], str]:
        """Who did what, newest first, and where the page ended.

        Raises:
            RolloutNotFound: there is none of that name.
        """
        found = await self._engine.store.acts(rollout_id, min(size, MAX_PAGE), after)
        if rollout_id and not found[0]:
            await self._stored(rollout_id)
        return found

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

    async def _abort(self, rollout_id: str, actor: Actor, why: str) -> Move:
        """Take a rollout back. Who follows a leader that can be heard refuses: that one knows what its judge saw."""
        engine = self._engine
        self._check_heard()
        rollout = engine.withdrawn(rollout_id) or self._running(rollout_id) or await self._stored(rollout_id)
        return await self._taken_back(rollout, actor, why)

    async def _taken_back(self, rollout: Rollout, actor: Actor, why: str) -> Move:
        move = self._engine.taken_back(rollout, why, self._engine.wall_clock(), actor.shown)
        if not move.effective:
            return move
        stored = await self._engine.take_back(move, actor.shown, actor.identity)
        if stored is None or not stored.ended:
            return replace(move, rollout=self._engine.withdrawn(rollout.id) or move.rollout)
        if (stored.state, stored.changed_at) == (move.rollout.state, move.rollout.changed_at):
            return replace(move, rollout=stored)
        return machine.take_back(stored, why, stored.changed_at)  # it had ended a moment before

    async def _act(self, rollout_id: str, action: Onward, actor: Actor, why: str) -> Move:
        engine = self._engine
        engine.leadership.require()
        rollout = engine.withdrawn(rollout_id) or self._running(rollout_id) or await self._stored(rollout_id)
        if action in (Action.RESUME, Action.PROMOTE) and not rollout.ended:
            self._check_thawed(action)
        move = self._moved(rollout, action, actor, why)
        if move.effective:
            await engine.carry_out(move, actor.shown, actor.identity)
        return move

    def _moved(self, rollout: Rollout, action: Onward, actor: Actor, why: str) -> Move:
        now, by = self._engine.wall_clock(), actor.shown
        match action:
            case Action.PAUSE:
                return machine.pause(rollout, why, now, by)
            case Action.RESUME:
                return machine.resume(rollout, self._engine.sight(rollout), why, now)
            case Action.PROMOTE:
                return machine.promote(rollout, self._engine.sight(rollout), why, now, by)

    def _check_heard(self) -> None:
        """Leave to a leader that can be heard what it knows better: what its judge saw.

        Raises:
            NotLeading: there is such a one.
        """
        engine = self._engine
        if engine.leadership.follows and not engine.is_cut_off:
            engine.leadership.require()

    def _check_thawed(self, doing: str) -> None:
        frozen = self._engine.book.frozen
        if frozen:
            raise RolloutsFrozen(f"rollouts are frozen, none may {doing}: {frozen}; `serin freeze --off` ends it")

    def _plan(self, model: str) -> ModelPlan:
        plans = self._engine.mesh.declared().models
        if model not in plans:
            raise RolloutInvalid(f"model: {model!r}: no such model: accepted: {', '.join(sorted(plans)) or 'none'}")
        return plans[model]

    def _live(self, rollout_id: str) -> Rollout | None:
        """A rollout that runs, as it is this moment; None: the store knows best."""
        engine = self._engine
        if engine.is_cut_off:
            return self._held(rollout_id)
        return engine.withdrawn(rollout_id) or (self._running(rollout_id) if engine.leadership.leads else None)

    def _held(self, rollout_id: str) -> Rollout | None:
        """A rollout that runs as far as this process knows, which does not hear the store; None: it knows of none."""
        withdrawn, running = self._engine.withdrawn(rollout_id), self._running(rollout_id)
        if withdrawn is not None or running is None:
            return withdrawn
        return replace(running, reason=words.unheard(running))

    def _all_held(self, model: str) -> list[Rollout]:
        """Those of a model (empty: of all), newest first, as :meth:`_held`."""
        running = [one for one in self._engine.book.rollouts.values() if model in ("", one.model)]
        newest_first = sorted(running, key=lambda one: one.started_at, reverse=True)
        return [held for one in newest_first if (held := self._held(one.id)) is not None]

    def _running(self, rollout_id: str) -> Rollout | None:
        return next((one for one in self._engine.book.rollouts.values() if one.id == rollout_id), None)

    async def _stored(self, rollout_id: str) -> Rollout:
        found = await self._engine.store.rollout(rollout_id)
        if found is None:
            raise RolloutNotFound(f"no rollout {rollout_id!r}; `serin rollout list` shows them")
        return found


def _asked(rollout: Rollout) -> str:
    """What was started, for the history."""
    spec = rollout.spec
    services = "+".join(map(str, spec.moved))
    steps = ", ".join(step.percent for step in spec.steps)
    asked = f"{spec.model}: {services} {rollout.from_version} -> {spec.to_version}, intent {spec.intent}, {steps}"
    return asked + rollout.reason.removeprefix(STARTED)
