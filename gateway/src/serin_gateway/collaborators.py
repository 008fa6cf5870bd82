"""What requests work with, and what a door knows about one before it has read it. Knows nothing about what happens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from serin_gateway.administration.desk import AdminDesk
from serin_gateway.catalog import CatalogSource
from serin_gateway.embedder import Embedders
from serin_gateway.guards.desk import Guards
from serin_gateway.idempotency import IdempotencyDesk
from serin_gateway.keys.authenticator import Authenticator
from serin_gateway.limits.leases import LeaseBook
from serin_gateway.observing.feedback import FeedbackDesk
from serin_gateway.observing.shadow import Shadow
from serin_gateway.overload import Turnstiles
from serin_gateway.placement import Placement
from serin_gateway.recall import Memory
from serin_gateway.receipt import Door, Journal
from serin_gateway.responses import ResponseDesk
from serin_gateway.scoring import Scorers
from serin_gateway.tokenizer import Detokenizer, Tokenizer
from serin_gateway.worker import Workers


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What every request works with."""

    catalog: CatalogSource
    authenticator: Authenticator
    leases: LeaseBook
    guards: Guards
    tokenizer: Tokenizer
    detokenizer: Detokenizer
    memory: Memory
    placement: Placement
    workers: Workers
    embedders: Embedders
    scorers: Scorers
    journal: Journal
    shadow: Shadow
    feedback: FeedbackDesk
    idempotency: IdempotencyDesk
    responses: ResponseDesk
    turnstiles: Turnstiles
    desk: AdminDesk


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a door knows about a request before it has read what is asked."""

    door: Door
    request_id: str
    key: str | None = None
    session_id: str = ""
    pinned_lane: str = ""
    cascade_hint: str = ""
    timeout_s: float = 600.0
    ignored: Sequence[str] = ()
    """What was said beside the body and has no effect."""

    @property
    def steering(self) -> tuple[str, ...]:
        """All that is said beside the body and changes the answer: another value asks for something else."""
        return self.pinned_lane, self.cascade_hint, self.session_id


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def is_request_id(text: str) -> bool:
    """Whether a client's own identifier of a request can be taken over."""
    return _REQUEST_ID.fullmatch(text) is not None
