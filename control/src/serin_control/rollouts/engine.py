"""Moves rollouts: looks at what runs and what the judge says, writes what follows, then lets traffic follow.

The book in the store decides; this process holds a copy and changes it only through the store. Who does not lead
follows: the same book makes the same traffic everywhere. What is written is what is wanted, never what is to be done:
dying between the two and reading the book again comes to the same. Taking a canary's traffic away is the exception: it
waits for nothing, not even for a look that waits for the store, and is written as soon as that answers. Knows nothing
about gRPC or Redis.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from serin_control.alarms import Alarms
from serin_control.errors import NotLeading, RolloutConflict, StoreDown
from serin_control.instance import Instance, Service
from serin_control.latest import Latest
from serin_control.plan import Share, TrafficPlan
from serin_control.rollouts import concerns, machine, upkeep, words
from serin_control.rollouts.act import JUDGE, Act
from serin_control.rollouts.arbiter import Court
from serin_control.rollouts.bench import Bench
from serin_control.rollouts.going_back import is_alive
from serin_control.rollouts.leadership import Leadership
from serin_control.rollouts.machine import Circumstances, Move
from serin_control.rollouts.presence import Attendance
from serin_control.rollouts.reach import Reach
from serin_control.rollouts.rollout import Rollout, State
from serin_control.rollouts.settling import after
from serin_control.rollouts.sight import Sight, hearing, look
from serin_control.rollouts.spec import scope_of
from serin_control.rollouts.standing import Standing, effective
from serin_control.rollouts.steering import SHARED_SERVICES, Steering, declared_shares
from serin_control.rollouts.store import Book, Change, RolloutStore
from serin_control.rollouts.withdrawal import Withdrawal, among, better_told, left_behind

TICK_S = 0.25
KEEP_EVERY_S = 3.0
WRITE_WITHIN_S = 0.5
"""So long whoever takes a canary back waits for the store to know it; the traffic is away already."""

_JUDGED = ("verdicts", "quality_judged")
_KEPT_SOMETIMES = ("reason", "next", "spent_s", "num_requests", "num_sessions", "num_running", *_JUDGED)


def _unheld(artifacts: Mapping[str, str]) -> None:
    """Hold nobody to anything."""


async def _forget() -> None:
    """Save nothing: what runs is known by other means."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What the engine needs of the control plane around it.

    Attributes:
        instances: everything that runs.
        declared: the plan of the configuration, without rollouts.
        steer: takes what rollouts want of it.
        is_settled: what runs is known; until then nothing moves: after a start, instances get time to be heard again.
        save: makes what runs durable, as far as the store answers.
        seal: holds versions to the files that they were accepted with (digests by cluster).
    """

    instances: Callable[[], tuple[Instance, ...]]
    declared: Callable[[], TrafficPlan]
    steer: Callable[[Steering], None]
    is_settled: Callable[[], bool] = lambda: True
    save: Callable[[], Awaitable[None]] = _forget
    seal: Callable[[Mapping[str, str]], None] = _unheld


class Engine:
    """Moves rollouts of one control plane. Call :meth:`start`, then keep :meth:`run` running.

    ``book`` is what decides traffic.

    Args:
        store: what survives.
        court: appoints judges.
        mesh: the control plane around it.
        leadership: whether this control plane leads.
        alarms: where to report what needs a person.
        clock: seconds, monotonic.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        store: RolloutStore,
        court: Court,
        mesh: Mesh,
        leadership: Leadership,
        alarms: Alarms,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.court = court
        self.mesh = mesh
        self.leadership = leadership
        self.bench = Bench(court, clock, self._version_of)
        self.lock = asyncio.Lock()
        self.looks: Latest[int] = Latest()
        self.wall_clock = wall_clock
        self.book = Book()
        self._is_known = False
        self._reach = Reach(clock)
        self._is_suspended = False
        self._unwritten: dict[str, Withdrawal] = {}
        self._alarms = alarms
        self._clock = clock
        self._looked_at = clock()
        self._kept_at = clock()
        self._attendance = Attendance(clock)
        self._steered: object = None
        self._sealed: Mapping[str, str] = {}
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Read the book before anything is published. A store that is down is no reason not to start."""
        await self.look()

    async def look(self) -> None:
        """Look once: follow what is written and, where this one leads, move what may move."""
        async with self.lock:
            await self._look()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            self._hurry.clear()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass  # time has passed: that is news too

    async def stop(self) -> None:
        """Keep what is known and give the lead up, so that another control plane leads at once."""
        async with self.lock:
            try:
                if self.leadership.leads:
                    await self._keep_progress()
                await self.leadership.resign()
            except (StoreDown, NotLeading):
                pass  # it lapses by itself

    async def suspend(self) -> None:
        """The whole mesh is being stopped in order: nothing moves on here any more, canaries that go are not missed.

        Holds until this process ends. The next control plane goes on where it was once the canary is back.
        """
        self._is_suspended = True
        async with self.lock:
            laid_down = {model: replace(one, is_laid_down=True) for model, one in self.book.rollouts.items()}
            self.book = replace(self.book, rollouts=laid_down)
            try:
                for rollout in laid_down.values():
                    await self.store.keep(self.leadership.require(), rollout, None)
            except (StoreDown, NotLeading):
                pass  # then it pauses at the next start, as after a crash

    def hurry(self) -> None:
        """Something happened: look now."""
        self._hurry.set()

    def sight(self, rollout: Rollout) -> Sight:
        """What of its arms is there now."""
        return look(rollout.spec, rollout.arms, self.mesh.instances())

    def informed(self, rollout: Rollout) -> Rollout:
        """A rollout with what this process has seen and heard of it by now, whether that could be written or not."""
        return machine.informed(rollout, self.sight(rollout), self.bench.decision(rollout))

    def taken_back(self, rollout: Rollout, why: str, now: float, by: str = "") -> Move:
        """The end of a rollout at somebody's word, with whoever met its canary as far as this process knows."""
        is_counted = self.bench.decision(rollout) is not None
        informed = self.informed(rollout)
        traffic = words.back_on_stable(informed)
        return machine.take_back(informed, why, now, by, traffic=traffic, is_counted=is_counted)

    @property
    def is_cut_off(self) -> bool:
        """Whether the store did not answer when it was last asked, or owes an answer for too long."""
        return self._reach.is_cut_off

    async def write(self, change: Change) -> None:
        """Make a change of the book durable, then let traffic follow. Hold the lock.

        Raises:
            NotLeading: another control plane leads.
            RolloutConflict: the book has changed.
            StoreDown: it may have been written or not; the book is read again before anything else.
        """
        try:
            self.book = await self.store.write(self.leadership.require(), self.book, change)
        except (NotLeading, RolloutConflict, StoreDown) as error:
            self._is_known = False
            if isinstance(error, StoreDown):
                self._reach.failed()
            raise
        self._apply()

    async def carry_out(self, move: Move, actor: str, identity: str = "") -> None:
        """Write a move of a rollout with its line for the history and what it leaves behind. Hold the lock."""
        now = self.wall_clock()
        acts = (Act(now, move.rollout.id, actor, move.what, move.reason, identity),) if move.what else ()
        await self._write_rollout(move.rollout, acts, now)

    async def take_back(self, move: Move, actor: str, identity: str = "") -> Rollout | None:
        """Take a canary's traffic away, then write that. Do not hold the lock: the traffic does not wait for it.

        Returns the rollout as the store has it then, which may have ended otherwise a moment before; None: the store
        did not answer in time. It is written once it does; until then it lasts as long as this process.
        """
        self._withdraw(move, actor, identity)
        try:
            async with asyncio.timeout(WRITE_WITHIN_S), self.lock:
                await self._follow()
                return await self.store.rollout(move.rollout.id)
        except (StoreDown, TimeoutError):
            self._reach.failed()
            return None
        finally:
            self._apply()

    def withdrawn(self, rollout_id: str) -> Rollout | None:
        """A rollout that was taken back and of which the history does not say so yet, as it ends."""
        found = self._withdrawn().get(rollout_id)
        if found is None:
            return None
        is_known_here_only = self.is_cut_off and not self.is_written(rollout_id)
        return replace(found.rollout, reason=words.unwritten(found.rollout)) if is_known_here_only else found.rollout

    def is_written(self, rollout_id: str) -> bool:
        """Whether what this process knows of a rollout outlives it."""
        return rollout_id not in self._unwritten

    async def past(self, model: str, size: int, after: str = "") -> tuple[list[Rollout], str]:
        """Rollouts of a model (empty: of all) that the store has, newest first, and where the page ended.

        What cannot be read is left out, with an alarm.

        Raises:
            StoreDown: the store does not answer.
        """
        page = await self.store.rollouts(model, size, after)
        self._tell_unreadable(f"all/{name}" for name in page.unreadable)
        return page.rollouts, page.more

    @property
    def shared(self) -> Mapping[Service, str]:
        """The version that lanes share of what only some of them name: the one that is declared."""
        shares = self.mesh.declared().service_shares.get(Service.CACHE, {})
        return {Service.CACHE: max(shares, key=lambda version: shares[version])} if shares else {}

    def declared(self, model: str) -> tuple[Share, ...]:
        """Shares with traffic that the configuration declares of a model, or of a service that all models share."""
        declared = self.mesh.declared()
        for service in SHARED_SERVICES:
            if model == scope_of(service):
                return declared_shares(declared, service)
        plan = declared.models.get(model)
        return effective(plan.shares) if plan else ()

    def _withdraw(self, move: Move, actor: str, identity: str = "") -> None:
        """Take a canary's traffic away before that is written."""
        act = Act(move.rollout.changed_at, move.rollout.id, actor, move.what, move.reason, identity)
        self._unwritten[move.rollout.id] = Withdrawal(move.rollout, act)
        self._apply()

    async def _look(self) -> None:
        """One look: follow, and move if this one leads."""
        now = self._clock()
        passed_s, self._looked_at = max(0.0, now - self._looked_at), now
        try:
            await self._follow()
            self._listen()
            if not self.leadership.leads:
                self.bench.dismiss(self.bench.models)
            else:
                # Before anything else: what is observed must be heard.
                for rollout in list(self.book.rollouts.values()):
                    await self._call_up(rollout)
                if self.mesh.is_settled() and self._reach.is_steady and not self._is_suspended:
                    await self._move(passed_s)
        except StoreDown:  # whoever keeps the mesh in it has raised the alarm: nothing moves on
            self._reach.failed()
            self._judge_without_store()
        except (NotLeading, RolloutConflict):
            self.leadership.forget()
            self._is_known = False
        self._apply()
        self.looks.set(self.looks.version + 1)

    async def _follow(self) -> None:
        """Be what the store says: who leads, what the book is; and have it know what was taken back without it."""
        with self._reach.asking():
            led = self.leadership.leads
            await self.leadership.look()
            if self.leadership.leads and not led:
                self._is_known = False  # how far rollouts have come is kept without a new revision
            await self._read()
            await self._write_withdrawals()

    async def _read(self) -> None:
        found = await self.store.read(self.book.revision if self._is_known else -1)
        if found is not None:
            self.book = found
            self._tell_unreadable(found.unreadable)
        self._is_known = True
        self._attendance.forget_all_but(rollout.id for rollout in self.book.rollouts.values())

    def _tell_unreadable(self, records: Iterable[str]) -> None:
        for name in records:
            self._alarms.raise_(f"rollouts/unreadable/{name}", f"stored record {name} cannot be read: left out")

    async def _write_withdrawals(self) -> None:
        """Write the end of what was taken back; who does not lead puts it into the book for whoever does.

        Of a rollout that has ended meanwhile, nothing.
        """
        own = dict(self._unwritten)  # more may come while the store is waited for
        for name, withdrawal in among(better_told(own, self.book.withdrawn), self.book.rollouts).items():
            try:
                await self._write_end(withdrawal)
            except (NotLeading, RolloutConflict) as error:
                if isinstance(error, NotLeading):
                    self.leadership.forget()
                if name in own:
                    await self.store.withdraw(withdrawal)
                    self._is_known = False
        for name in own:
            self._unwritten.pop(name, None)
        if not self._is_known:
            await self._read()

    async def _write_end(self, withdrawal: Withdrawal) -> None:
        """Write what a withdrawal says. Whoever said it may have heard less of the canary than is known here."""
        ended, act = withdrawal.rollout, withdrawal.act
        running = self.book.rollouts[ended.model]
        if self.informed(running).num_requests > ended.num_requests:
            ended = self.taken_back(running, act.reason, act.at, "" if act.actor == JUDGE else act.actor).rollout
        await self._write_rollout(ended, (act,), act.at)

    def _listen(self) -> None:
        """Note of whom each rollout is heard: who hears nobody of one knows nothing of it, and must not act on that."""
        instances = self.mesh.instances()
        for rollout in self.book.rollouts.values():
            self._attendance.listen(rollout, hearing(rollout.spec, rollout.arms, instances))

    def _judge_without_store(self) -> None:
        """Take back what the judges of this process find bad, although it cannot be written."""
        for rollout in self._effective()[0].values():
            if not (self.bench.has(rollout) and self.mesh.is_settled() and self._attendance.knows(rollout)):
                continue
            seen = self._looked(rollout, 0.0)
            around = self._circumstances(rollout, seen, 0.0)
            move = machine.advance(rollout, seen, self.bench.decision(rollout), around)
            if move.rollout.state is State.ABORTED:
                self._withdraw(move, JUDGE)

    async def _write_rollout(self, rollout: Rollout, acts: tuple[Act, ...], at: float) -> None:
        scope = rollout.spec.scope
        standing = after(rollout, self._standing(scope), self.declared(scope), at)
        seals = None
        if rollout.state is State.PROMOTED:
            seals = self.book.seals_of(rollout.model).accepted(rollout.canary_files, rollout.arms.canary)
        await self.write(Change(acts, rollout, standing, seals=seals))

    async def _move(self, passed_s: float) -> None:
        now = self._clock()
        for rollout in list(self.book.rollouts.values()):
            is_taken_back = rollout.id in self._withdrawn()  # by somebody, a moment ago
            if self._attendance.knows(rollout) and not is_taken_back:
                await self._advance(rollout, passed_s)
        await self._keep_up()
        if now - self._kept_at >= KEEP_EVERY_S:
            self._kept_at = now
            await self._keep_progress()

    async def _advance(self, rollout: Rollout, passed_s: float) -> None:
        seen = self._looked(rollout, passed_s)
        around = self._circumstances(rollout, seen, passed_s)
        move = machine.advance(rollout, seen, self.bench.decision(rollout), around)
        if move.rollout.state is State.ABORTED:
            self._withdraw(move, JUDGE)
            await self._write_withdrawals()
        elif move.what or _is_news(rollout, move.rollout):
            await self.carry_out(move, JUDGE)
        else:  # only time and counts: kept every few seconds
            self.book = replace(self.book, rollouts={**self.book.rollouts, rollout.model: move.rollout})
        if not move.rollout.ended:
            await self._call_up(move.rollout)

    async def _call_up(self, rollout: Rollout) -> None:
        if rollout.stable_lane and rollout.canary_lane and not self.bench.has(rollout):
            kept, golden = await self.store.judge(rollout.id), await self.store.golden(rollout.id)
            lost = self.bench.call_up(rollout, kept, golden)
            if lost:
                await self.carry_out(machine.judged_anew(rollout, words.unreadable(lost)), JUDGE)

    def _looked(self, rollout: Rollout, passed_s: float) -> Sight:
        """What of its arms is there; its judge leaves out the time in which what it compares with was not."""
        seen = self.sight(rollout)
        if not seen.compared_able:
            now = self.wall_clock()
            self.bench.leave_out(rollout.model, now - passed_s, now)
        return seen

    def _circumstances(self, rollout: Rollout, seen: Sight, passed_s: float) -> Circumstances:
        presence = self._attendance.note(rollout, seen)
        return Circumstances(self.wall_clock(), passed_s, self.book.frozen, presence)

    async def _keep_up(self) -> None:
        """Write what time, the configuration and announcements come to, beside all rollouts."""
        plans, now = self.mesh.declared().models, self.wall_clock()
        for change in upkeep.settled(self.book, plans, self._is_served, now):
            await self.write(change)
        for change in upkeep.sealed(self.book, plans, self.mesh.instances(), now):
            await self.write(change)

    async def _keep_progress(self) -> None:
        leader = self.leadership.require()
        for model, rollout in self.book.rollouts.items():
            news = self.bench.news(model)
            if news is not None or rollout.state is not State.PAUSED:
                await self.store.keep(leader, rollout, news.known if news else None)
            if news is not None:
                self.bench.kept(model, news)

    def _apply(self) -> None:
        """Let judges and traffic be what the book says."""
        rollouts, standings = self._effective()
        self.bench.dismiss([model for model in self.bench.models if model not in rollouts])
        steering = Steering(rollouts, standings)
        wanted = steering.course()
        sealed = {name: digest for seals in self.book.seals.values() for name, digest in seals.clusters.items()}
        if sealed != self._sealed:  # first: nobody who breaks one is steered to
            self._sealed = sealed
            self.mesh.seal(sealed)
        if (self._is_known or self._unwritten) and wanted != self._steered:
            self._steered = wanted
            self.mesh.steer(steering)
        unwritten = [one.rollout for one in self._unwritten.values()] if self.is_cut_off else []
        alarms = dict(concerns.of_unwritten(unwritten))
        alarms |= dict(concerns.of_running(rollouts.values(), self.bench.faults()))
        if self.mesh.is_settled() and not self._is_suspended:
            known = [one for one in rollouts.values() if self._attendance.knows(one)]
            alarms |= dict(concerns.of_missing_stables(map(self.informed, known)))
            if self.leadership.leads:
                alarms |= dict(concerns.of_unheard(filter(self._attendance.is_deaf_to, rollouts.values())))
        self._alarms.replace("rollout/", alarms)

    def _withdrawn(self) -> Mapping[str, Withdrawal]:
        return {**self._unwritten, **self.book.withdrawn}

    def _effective(self) -> tuple[dict[str, Rollout], dict[str, Standing]]:
        """Rollouts that run and standings, with what was taken back already counted as it will be written."""
        return left_behind(self._withdrawn().values(), self.book.rollouts, self.book.standings, self.declared)

    def _version_of(self, instance: str) -> str:
        """Version of an instance; empty: nobody of that name is known."""
        known = (one.registration for one in self.mesh.instances())
        return next((one.version for one in known if one.instance == instance), "")

    def _is_served(self, standing: Standing) -> bool:
        """Whether what has the traffic takes calls; else what is kept may be all that does, and stays."""
        instances, shares = self.mesh.instances(), standing.shares or self.declared(standing.model)
        return any(is_alive(standing.model, share.versions, instances) for share in shares)

    def _standing(self, model: str) -> Standing:
        return self.book.standings.get(model) or Standing(model, self.declared(model))


def _is_news(before: Rollout, now: Rollout) -> bool:
    """Whether something changed that must survive at once: everything but time and counts."""
    alike = {name: getattr(before, name) for name in _KEPT_SOMETIMES}
    return replace(now, **alike) != before
