"""What one client holds of one kind of resource: what it asked for, what it was sent, what it said to that.

Follows the state-of-the-world protocol (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol). Pure:
no streams, no messages; time comes as a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serin_control.xds.resources import Kind
from serin_control.xds.snapshot import Encoded

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """One kind of resource on one stream.

    Attributes:
        kind: of resource.
        names: what is asked for by name.
        wildcard: everything is asked for.
        fresh: what was asked for and has had no answer yet.
        held: what was sent and is still asked for.
        nonce: of what was sent last; empty: nothing yet.
        sent_at: when.
        answered: whether the client has said anything to it.
        refused: what the client said against it (a NACK); empty: nothing.
    """

    kind: Kind
    names: frozenset[str] = frozenset()
    wildcard: bool = False
    fresh: frozenset[str] = frozenset()
    held: dict[str, Encoded] = field(default_factory=dict)
    nonce: str = ""
    sent_at: float = 0.0
    answered: bool = True
    refused: str = ""

    @property
    def whole(self) -> bool:
        """Whether each response must hold everything, so that what is missing is deleted (clusters, listeners)."""
        return self.kind in (Kind.CLUSTER, Kind.LISTENER)

    @property
    def taken(self) -> Mapping[str, Encoded]:
        """What the client said that it holds; nothing, while it has not answered what was sent last or refuses it."""
        return self.held if self.answered and not self.refused else {}

    @property
    def wanted(self) -> frozenset[str] | None:
        """Names to send; None: all."""
        return None if self.wildcard else self.names

    def hear(self, names: Sequence[str], nonce: str, refusal: str) -> bool:
        """Take in a request; returns whether it speaks about what was sent last (else it crossed it, and is void)."""
        if nonce and nonce != self.nonce:
            return False
        if nonce:
            self.answered, self.refused = True, refusal
        self._subscribe(names)
        return True

    def changes(self, selection: Mapping[str, Encoded]) -> dict[str, Encoded]:
        """What a response would have to hold; empty where none is needed.

        Args:
            selection: everything there is of what the client wants.
        """
        news = {name: found for name, found in selection.items() if not self._holds(name, found)}
        if not self.whole:
            return news
        return dict(selection) if news or self.held.keys() - selection.keys() else {}

    def owed(self, selection: Mapping[str, Encoded]) -> bool:
        """Whether the client asked for something that it must be told about at once."""
        return bool(self.fresh if self.whole else self.fresh & selection.keys())

    def send(self, selection: Mapping[str, Encoded], sent: Mapping[str, Encoded], nonce: str, now: float) -> None:
        """Note that of ``selection`` the resources ``sent`` were sent."""
        self.held = {name: found for name, found in selection.items() if name in sent or name in self.held}
        self.fresh = frozenset() if self.whole else self.fresh - sent.keys()
        self.nonce, self.sent_at, self.answered, self.refused = nonce, now, False, ""

    def _holds(self, name: str, found: Encoded) -> bool:
        held = self.held.get(name)
        return held is not None and held.digest == found.digest

    def _subscribe(self, names: Sequence[str]) -> None:
        asked = frozenset(names) - {WILDCARD}
        first = not self.nonce and not self.names
        silent_wildcard = not names and self.whole and (self.wildcard or first)
        wildcard = WILDCARD in names or silent_wildcard
        new = asked - self.names if not wildcard else frozenset()
        if wildcard and not self.wildcard:
            new = frozenset([WILDCARD])
        self.fresh = (self.fresh & (asked | {WILDCARD})) | new
        self.names, self.wildcard = asked, wildcard
        self.held = {name: found for name, found in self.held.items() if wildcard or name in asked}
