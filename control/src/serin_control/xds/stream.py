"""One client of the control plane: what it is owed next.

Changes are pushed in the order secrets, clusters, endpoints, listeners, routes, each kind only when the client has
taken the one before (make before break). A cluster is taken away only when the client has taken the routes without
it: while it refuses them, its old ones lead somewhere. What a client newly asks for is answered at once. Pure: no
gRPC, no tasks; time comes as a number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serin_control.xds.resources import Audience, Kind
from serin_control.xds.snapshot import Encoded, Snapshot, clusters_of, version_of
from serin_control.xds.subscription import Subscription

PATIENCE_S = 5.0
"""How long a client may take to answer one kind before the next is pushed anyway. A refusal is not outwaited."""


@dataclass(frozen=True, slots=True)
class Push:
    """A response to send; ``fields`` are resources, each as bytes of a DiscoveryResponse."""

    kind: Kind
    version: str
    nonce: str
    fields: tuple[bytes, ...]


@dataclass(slots=True)
class ClientStream:
    """What one stream has asked for and holds.

    ``held_up``: something changed that may not be sent yet; look again when the client speaks or time has passed.
    """

    node: str = ""
    audience: Audience = Audience.MESH
    subscriptions: dict[Kind, Subscription] = field(default_factory=dict)
    held_up: bool = False
    _num_sent: int = 0

    def hear(self, kind: Kind, names: Sequence[str], nonce: str, refusal: str) -> bool:
        """Take in a request; returns whether it was about what was sent last."""
        subscription = self.subscriptions.setdefault(kind, Subscription(kind))
        return subscription.hear(names, nonce, refusal)

    def next_push(self, snapshot: Snapshot, now: float) -> Push | None:
        """The next response that this client is owed; None: nothing more for now."""
        self.held_up = False
        for kind in Kind:  # in the order of pushing
            subscription = self.subscriptions.get(kind)
            if subscription is None:
                continue
            selection = self._selection(snapshot, subscription)
            changes = subscription.changes(selection)
            changed = bool(changes) or (subscription.whole and bool(subscription.held.keys() - selection.keys()))
            if subscription.owed(selection):
                return self._push(subscription, selection, dict(selection) if subscription.whole else changes, now)
            if changed and not self.held_up and not self._waits_for(subscription, now):
                return self._push(subscription, selection, changes, now)
            self.held_up = self.held_up or changed or self._blocks(subscription, now)
        return None

    def knows(self, lane: str, targets: Collection[str], where: Mapping[str, str]) -> bool:
        """Whether calls that name a lane get there, by all of these targets that the client asks for.

        Args:
            lane: its id.
            targets: those that it should be called by.
            where: the cluster that each target's calls of the lane go to, as far as that is published.
        """
        routes = self.subscriptions.get(Kind.ROUTES)
        if routes is None:
            return True
        asked = {target: where.get(target, "") for target in targets if routes.wildcard or target in routes.names}
        if not asked.items() <= clusters_of(lane, routes.taken).items():
            return False
        others = [self.subscriptions.get(kind) for kind in (Kind.CLUSTER, Kind.ASSIGNMENT)]
        taken = [other.taken.keys() if other is not None else frozenset() for other in others]
        return all(set(asked.values()) <= names for names in taken)

    def _selection(self, snapshot: Snapshot, subscription: Subscription) -> dict[str, Encoded]:
        """What the client should hold: what there is, and clusters that its routes may still name."""
        selection = snapshot.select(self.audience, subscription.kind, subscription.wanted)
        if subscription.kind is Kind.CLUSTER and not self._holds_routes_of(snapshot):
            return subscription.held | selection
        return selection

    def _holds_routes_of(self, snapshot: Snapshot) -> bool:
        routes = self.subscriptions.get(Kind.ROUTES)
        if routes is None:
            return True
        there = snapshot.select(self.audience, Kind.ROUTES, routes.wanted)
        return routes.answered and not routes.refused and not routes.changes(there)

    def _push(
        self, subscription: Subscription, selection: Mapping[str, Encoded], sent: Mapping[str, Encoded], now: float
    ) -> Push:
        self._num_sent += 1
        nonce = str(self._num_sent)
        subscription.send(selection, sent, nonce, now)
        fields = tuple(sent[name].field for name in sorted(sent))
        return Push(subscription.kind, version_of(selection), nonce, fields)

    def _blocks(self, subscription: Subscription, now: float) -> bool:
        """Whether kinds after this one must wait; for certificates nobody does, who needs them waits itself."""
        if subscription.kind is Kind.SECRET:
            return False
        if subscription.refused or self._waits_for(subscription, now):
            return True
        if subscription.kind is not Kind.CLUSTER or self._outwaited(subscription, now):
            return False
        endpoints = self.subscriptions.get(Kind.ASSIGNMENT)
        return endpoints is None or not (endpoints.wildcard or subscription.held.keys() <= endpoints.names)

    def _waits_for(self, subscription: Subscription, now: float) -> bool:
        return not subscription.answered and not self._outwaited(subscription, now)

    def _outwaited(self, subscription: Subscription, now: float) -> bool:
        return now - subscription.sent_at > PATIENCE_S
