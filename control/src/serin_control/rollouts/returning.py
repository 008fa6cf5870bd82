"""A model's traffic goes back, at somebody's word: to what it had before, or to what they name.

Says what is meant where nothing is named, writes it through the engine, and answers truthfully what has the traffic
then. Knows nothing about gRPC.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from serin_control.errors import NotLeading, RolloutInvalid, StoreDown, VersionGone
from serin_control.instance import MEMBER_SERVICES, Service
from serin_control.lanes import WEIGHT_SUM, named, with_shared
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.act import Act, Actor
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.going_back import check_back_on, has_served, lane_of, target
from serin_control.rollouts.machine import Move
from serin_control.rollouts.rollout import Rollout, State
from serin_control.rollouts.sight import service_shares
from serin_control.rollouts.spec import scope_of, shown_scope
from serin_control.rollouts.standing import Standing, effective
from serin_control.rollouts.steering import SHARED_SERVICES, steered
from serin_control.rollouts.store import Change

UNWRITTEN = (
    "state Redis does not answer: this control plane writes it when Redis is back; `serin rollout abort {}` says it to "
    "every control plane"
)

MAX_LOOKED_BACK = 50
"""Rollouts that are looked at for whether a version was ever released."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Where traffic is after a rollback.

    Attributes:
        note: what a person should know of it; empty: nothing.
        service: whose traffic it is, where all models share that service; None: the model's.
    """

    version: str
    lane: str
    note: str = ""
    service: Service | None = None


class Returning:
    """Gives traffic back.

    Args:
        engine: what carries it out.
        take_back: ends a rollout that runs, for a reason, in somebody's name.
    """

    def __init__(self, engine: Engine, take_back: Callable[[Rollout, Actor, str], Awaitable[Move]]) -> None:
        self._engine = engine
        self._take_back = take_back

    async def go_back(
        self, plan: ModelPlan, to_version: str, actor: Actor, why: str, service: Service | None
    ) -> Returned:
        """As :meth:`serin_control.rollouts.desk.Desk.rollback` promises it."""
        engine, model = self._engine, plan.name
        running = self._meant(model, to_version, service)
        if running is not None:
            service = None if running.spec.moves_lanes else running.spec.service
            move = await self._take_back(engine.withdrawn(running.id) or running, actor, f"rolled back: {why}")
            is_written = engine.is_written(running.id)
            # What cannot be written yet moves no further than the end of the rollout.
            is_there = not to_version or (not is_written and to_version == running.from_version)
            if is_there and move.rollout.state is State.ABORTED:
                check_back_on(running, engine.mesh.instances(), self._declared(plan))
                note = "" if is_written else UNWRITTEN.format(running.id)
                all_of_it = (Share(running.arms.canary, WEIGHT_SUM),)
                return replace(self._returned(model, all_of_it, running.arms.stable), note=note, service=service)
        try:
            returned = await self._back(plan, to_version, actor, why, service)
        except (RolloutInvalid, VersionGone) as error:
            hints = [f"{running.id} was taken back" if running is not None else "", str(error)]
            hints += [self._elsewhere(model, lately=False)] if service is None else []
            raise type(error)("; ".join(filter(None, hints))) from error
        except (NotLeading, StoreDown) as error:
            if running is None or engine.is_written(running.id):
                raise
            raise StoreDown(
                f"{running.id} was taken back: its traffic is on {running.from_version}; it goes to {to_version} once "
                f"this is said again when state Redis answers: {error}"
            ) from error
        beside = self._elsewhere(model, lately=True) if service is None else ""
        return replace(returned, note="; ".join(filter(None, (returned.note, beside))), service=service)

    def _meant(self, model: str, to_version: str, service: Service | None) -> Rollout | None:
        """The rollout that a rollback takes back; None: none runs.

        Who names nothing means the model's own, whatever moves in it. Who names a version and no service means the
        model's lanes: a gateway may have a version of that name too.
        """
        running = self._engine.book.rollouts
        if service is not None:
            return next((one for one in running.values() if one.spec.scope == scope_of(service)), None)
        own = running.get(model)
        return own if own is not None and (own.spec.moves_lanes or not to_version) else None

    def _elsewhere(self, model: str, *, lately: bool) -> str:
        """What somebody who goes back may have meant instead: a service that all models share; empty: none moved.

        ``lately``: only what moves now, or has within the time for which the version before is kept.
        """
        book = self._engine.book
        for service in SHARED_SERVICES:
            scope, whose = scope_of(service), f"the {service}, which all models share"
            command = f"`serin rollback --model {model} --service {service}`"
            moving = next((one for one in book.rollouts.values() if one.spec.scope == scope), None)
            if moving is not None:
                return f"{moving.id} moves {whose}: {command} takes it back"
            standing = book.standings.get(scope)
            if (
                standing is not None
                and standing.previous
                and not (lately and not any(one.good for one in standing.kept))
            ):
                return f"{whose}, was moved from {named(standing.previous[0].versions)}: {command} returns to it"
        return ""

    async def _back(
        self, plan: ModelPlan, to_version: str, actor: Actor, why: str, service: Service | None
    ) -> Returned:
        """Give traffic back where no rollout has it."""
        engine, model = self._engine, plan.name
        scope = model if service is None else scope_of(service)
        async with engine.lock:
            engine.leadership.require()
            instances = engine.mesh.instances()
            standing = engine.book.standings.get(scope) or Standing(scope, engine.declared(scope))
            if service is None:
                now = effective(steered(plan, standing, None).shares)
            else:
                still = standing.declared == engine.declared(scope)
                now = service_shares(service, (standing.shares if still else None) or standing.declared, instances)
            back = target(model, to_version, standing, now, instances, self._declared(plan), engine.shared)
            note = ""
            if back != now:
                note = await self._unproven(model, scope, back, now, standing)
                moved = replace(standing, declared=engine.declared(scope)).back_at(back, now, engine.wall_clock())
                what = f"{shown_scope(scope)}: {named(now[0].versions)} -> {named(back[0].versions)}: {why}"
                what += f" ({note})" if note else ""
                last = Act(engine.wall_clock(), "", actor.shown, "rollback", what, actor.identity)
                await engine.write(Change((last,), None, moved))
            return replace(self._returned(model, now, back), note=note)

    def _declared(self, plan: ModelPlan) -> set[tuple[Service, str]]:
        """What the configuration has run for a model."""
        of_all = self._engine.mesh.declared().service_shares
        shared = {(service, version) for service, shares in of_all.items() for version in shares}
        return shared | {pair for share in plan.shares for pair in share.versions}

    async def _unproven(
        self, model: str, scope: str, back: tuple[Share, ...], now: tuple[Share, ...], standing: Standing
    ) -> str:
        """What to say of shares that never had the traffic; empty: they had."""
        engine = self._engine
        if has_served(back, standing, (), engine.shared):
            return ""
        what = named(tuple(pair for pair in back[0].versions if pair not in now[0].versions))
        try:
            found, _ = await engine.past(model if scope == model else "", MAX_LOOKED_BACK)
        except StoreDown:  # a note keeps no rollback from happening: whether that can be written is found out there
            return f"whether {what} was ever judged is not known: the rollouts of the past could not be read"
        if has_served(back, standing, [one for one in found if one.spec.scope == scope], engine.shared):
            return ""
        return f"{what} was never judged: no rollout promoted it, and it had no traffic before"

    def _returned(self, model: str, old: tuple[Share, ...], new: tuple[Share, ...]) -> Returned:
        """Where the traffic is now: the version that differs from before, else the worker's."""
        before = dict(with_shared(old[0].versions, self._engine.shared))
        versions = new[0].versions
        of_lanes = all(service in MEMBER_SERVICES for service, _ in versions)
        lane = lane_of(model, versions, self._engine.mesh.instances()) if of_lanes else None
        if of_lanes and Service.CACHE in dict(old[0].versions):
            versions = with_shared(versions, self._engine.shared)
        changed = [version for service, version in versions if before.get(service) != version]
        return Returned((changed or [version for _, version in versions])[-1], lane.id if lane else "")
