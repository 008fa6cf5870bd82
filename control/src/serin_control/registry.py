"""Which instances exist: leases that are held by heartbeats and end without them.

An instance is heard, then *suspect* (its stream broke, or two heartbeats are missing), then gone. When more than half
of a cluster is silent together, the fault is more likely between us and them than in them: those are kept, as *lost*,
until enough of the cluster is heard again. So an empty cluster never replaces a full one.

Who says what cannot be is refused: it counts as starting, with the reason, for as long as it goes on saying so. So is
who announces other files than its version was accepted with.

Knows nothing about the wire, lanes, storage, or when a version is accepted. Time comes from the clock it is given
(seconds, monotonic).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from serin_control.admission import check_registration, check_status
from serin_control.errors import LeaseSuperseded, RegistrationInvalid, VersionMismatch
from serin_control.instance import Digests, Instance, Registration, State, Status

_KINDS = {"artifact": "files", "vocabulary": "vocabulary", "kv": "KV (weights, precision, block layout)"}

MAX_INSTANCES = 10_000
"""Most leases that are held; a mesh of this size needs several control planes' worth of thought first."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long silence is borne, in seconds."""

    heartbeat_s: float = 1.0
    ttl_s: float = 3.0
    max_kept_s: float = 86_400.0

    @property
    def suspect_after_s(self) -> float:
        """Silence after which an instance is suspect although its stream stands."""
        return 2 * self.heartbeat_s


@dataclass(frozen=True, slots=True)
class Ticket:
    """Proof of holding an instance's lease. A later announcement under the same name makes it worthless."""

    instance: str
    number: int
    registered_at: float


@dataclass(slots=True)
class _Lease:
    held: Instance
    heard_at: float
    ticket: int


class Registry:
    """All leases. ``revision`` grows whenever :meth:`instances` would differ."""

    def __init__(self, clock: Callable[[], float], terms: LeaseTerms | None = None) -> None:
        self.terms = terms or LeaseTerms()
        self.revision = 0
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._seals: Mapping[str, str] = {}
        self._num_tickets = 0

    def instances(self) -> tuple[Instance, ...]:
        """Everything that is held, ordered by service, model, version and name."""
        return tuple(sorted((lease.held for lease in self._leases.values()), key=_order))

    def seal(self, artifacts: Mapping[str, str]) -> None:
        """Hold versions to the files that they were accepted with: digests by cluster, in place of those before.

        Whoever announces others gets no traffic from now on. Who was refused and is not any more is believed again with
        its next heartbeat.
        """
        self._seals = artifacts
        for lease in self._leases.values():
            self._change(lease, self._unbroken(lease.held))

    def announce(self, registration: Registration, registered_at: float) -> Ticket:
        """Take the lease of an instance, or take it over.

        Who announces what is held already may be the same process on a new stream, or a new one on the same ports:
        its first heartbeat tells. Until then it stays what it was, so that who merely reconnects loses no traffic.

        Raises:
            RegistrationInvalid: incomplete, or its name or endpoint belongs to a living instance of another service.
        """
        check_registration(registration)
        if len(self._leases) >= MAX_INSTANCES and registration.instance not in self._leases:
            raise RegistrationInvalid(f"{len(self._leases)} instances are registered already: at most {MAX_INSTANCES}")
        for lease in list(self._leases.values()):
            self._make_way(lease.held, registration)
        old = self._leases.get(registration.instance)
        same = old is not None and old.held.registration == registration
        status = old.held.status if old is not None and same else Status()
        refusal, foreign = (old.held.refusal, old.held.foreign) if old is not None and same else ("", "")
        since = old.held.registered_at if old is not None and same else registered_at
        self._num_tickets += 1
        self._hold(Instance(registration, status, since, refusal=refusal, foreign=foreign), self._num_tickets)
        return Ticket(registration.instance, self._num_tickets, registered_at)

    def beat(self, ticket: Ticket, status: Status) -> None:
        """Hear an instance.

        Raises:
            LeaseSuperseded: the instance announced again elsewhere.
            RegistrationInvalid: it says it is ready and leaves out what that needs.
            VersionMismatch: its digests differ from those of its version, or of its siblings.
        """
        lease = self._leases.get(ticket.instance)
        if lease is None or lease.ticket != ticket.number:
            raise LeaseSuperseded(f"{ticket.instance} announced again on another stream; this one is over")
        if status.state is State.DRAINING and not status.digests.artifact:  # it is still what it was
            status = replace(status, digests=lease.held.status.digests, capacity=lease.held.status.capacity)
        foreign = self._foreign(lease.held.registration, status)
        try:
            check_status(lease.held.registration, status)
            if foreign:
                raise VersionMismatch(self._broken(lease.held.registration, foreign))
            self._check_siblings(lease.held, status)
        except (RegistrationInvalid, VersionMismatch) as error:
            self._refuse(lease, ticket, str(error), foreign)
            raise
        since = ticket.registered_at
        heard = Instance(lease.held.registration, status, since)
        self._hold(heard, ticket.number)

    def lose(self, ticket: Ticket) -> None:
        """The stream broke: the instance is suspect for one time to live."""
        lease = self._leases.get(ticket.instance)
        if lease is None or lease.ticket != ticket.number:
            return
        lease.ticket = 0
        if not lease.held.suspect:  # one that was silent already gets no further time
            self._hold(replace(lease.held, suspect=True), ticket=0)

    def withdraw(self, ticket: Ticket) -> None:
        """The instance says it is gone for good."""
        lease = self._leases.get(ticket.instance)
        if lease is not None and lease.ticket == ticket.number:
            self._drop(ticket.instance)

    def restore(self, instances: Iterable[Instance]) -> None:
        """Give stored instances one time to live to announce themselves again. Those already heard stay as they are."""
        for instance in instances:
            if instance.registration.instance not in self._leases:
                self._hold(self._unbroken(replace(instance, suspect=True)), ticket=0)

    def tick(self) -> None:
        """Let time pass: call it at least once a heartbeat."""
        now = self._clock()
        for lease in self._leases.values():
            if now - lease.heard_at > self.terms.suspect_after_s and not lease.held.suspect:
                self._change(lease, replace(lease.held, suspect=True))
        for cluster in self._clusters():
            self._end_leases(cluster, now)

    def _end_leases(self, cluster: list[_Lease], now: float) -> None:
        ended = [lease for lease in cluster if now - lease.heard_at > self.terms.ttl_s]
        ready = [lease for lease in cluster if lease.held.status.state is State.READY]
        num_silent = sum(lease.held.suspect for lease in ready)
        together = num_silent * 2 > len(ready)
        for lease in ended:
            kept = together and lease in ready and now - lease.heard_at <= self.terms.max_kept_s
            if not kept:
                self._drop(lease.held.registration.instance)
            elif not lease.held.lost:
                self._change(lease, replace(lease.held, lost=True))

    def _refuse(self, lease: _Lease, ticket: Ticket, reason: str, foreign: str) -> None:
        """It goes on as the start that it was: announcing itself again and again is not starting again and again."""
        held = lease.held
        self._hold(
            Instance(held.registration, Status(), held.registered_at, refusal=reason, foreign=foreign), ticket.number
        )

    def _unbroken(self, instance: Instance) -> Instance:
        """An instance as it is held: refused where its version was accepted with other files."""
        foreign = self._foreign(instance.registration, instance.status)
        if not foreign:
            return instance
        refusal = self._broken(instance.registration, foreign)
        return replace(instance, status=Status(), refusal=refusal, foreign=foreign)

    def _foreign(self, who: Registration, status: Status) -> str:
        """Digest of the files that it would serve with and its version was not accepted with; empty: there are none."""
        artifact = status.digests.artifact if status.state is not State.STARTING else ""
        return "" if artifact in ("", self._seals.get(who.cluster, artifact)) else artifact

    def _broken(self, who: Registration, foreign: str) -> str:
        """That a version is announced with other files than it was accepted with, and what to do about it."""
        return (
            f"{who.cluster} is announced by {who.instance!r} with other files ({foreign[:12]!r}) than {who.version} "
            f"was accepted with ({self._seals[who.cluster][:12]!r}), and a version never changes: put those back and "
            "start it again, or give the changed files a version of their own"
        )

    def _make_way(self, held: Instance, newcomer: Registration) -> None:
        """A process that restarts on its old name or endpoint replaces itself, and nobody of another service."""
        who = held.registration
        if who.instance == newcomer.instance and who.service is not newcomer.service and not held.suspect:
            raise RegistrationInvalid(f"instance name {who.instance!r} is held by a living {who.service}")
        if who.instance != newcomer.instance and who.endpoint == newcomer.endpoint:
            if who.service is not newcomer.service and not held.suspect:
                raise RegistrationInvalid(f"endpoint {who.endpoint} is held by {who.service} {who.instance!r}")
            self._drop(who.instance)

    def _check_siblings(self, instance: Instance, status: Status) -> None:
        if status.state is State.STARTING or not status.digests.artifact:
            return
        who = instance.registration
        for lease in list(self._leases.values()):
            other = lease.held
            if other.registration.cluster != who.cluster or not other.serves or not other.status.digests.artifact:
                continue
            if other.status.digests.same_artifact(status.digests):
                continue
            if other.lost:  # dead for longer than a lease: it vetoes nothing, and it may not be mixed with the new
                self._drop(other.registration.instance)
                continue
            raise VersionMismatch(_mismatch(instance, status.digests, other))

    def _clusters(self) -> Iterator[list[_Lease]]:
        clusters: dict[str, list[_Lease]] = {}
        for lease in self._leases.values():
            clusters.setdefault(lease.held.registration.cluster, []).append(lease)
        yield from clusters.values()

    def _hold(self, instance: Instance, ticket: int) -> None:
        name = instance.registration.instance
        lease = self._leases.get(name)
        if lease is None:
            self._leases[name] = _Lease(instance, self._clock(), ticket)
            self.revision += 1
            return
        lease.heard_at, lease.ticket = self._clock(), ticket
        self._change(lease, instance)

    def _change(self, lease: _Lease, instance: Instance) -> None:
        if lease.held != instance:
            lease.held = instance
            self.revision += 1

    def _drop(self, instance: str) -> None:
        del self._leases[instance]
        self.revision += 1


def _order(instance: Instance) -> tuple[str, str, str, str]:
    who = instance.registration
    return (who.service, who.model, who.version, who.instance)


def _mismatch(instance: Instance, digests: Digests, other: Instance) -> str:
    """What differs between an instance and a sibling of its version, and what to do about it."""
    who, sibling = instance.registration, other.registration
    differences = digests.differences(other.status.digests)
    found = "; ".join(
        f"{_KINDS[name]} {getattr(digests, name)[:12]!r} and {getattr(other.status.digests, name)[:12]!r}"
        for name in differences
    )
    if differences == ("kv",):
        remedy = "give all instances of the version the same engine settings (precision, quantize, device)"
    else:
        remedy = "give changed files a version of their own"
    both = f"{who.cluster} is announced by {who.instance!r} and by {sibling.instance!r}"
    return f"{both} with different digests: {found}: {remedy}"
