"""What is behind the door: endpoints, found by method and raw path.

Knows nothing about authentication, except that an endpoint says which role it needs.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel
from serin_mesh.errors import MeshError, Reason

from serin_gateway.collaborators import Collaborators
from serin_gateway.keys.records import Ability, Role
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client
from serin_gateway.rest.errors import OPENAI, Dialect
from serin_gateway.rest.parameters import Neutral

OF_THE_DOOR = (
    Reason.PARAMETER_INVALID,
    Reason.KEY_MISSING,
    Reason.ROLE_INSUFFICIENT,
    Reason.BODY_TOO_LARGE,
    Reason.INTERNAL,
    Reason.AUTH_UNAVAILABLE,
)
"""Of every endpoint that needs a key."""
OF_A_MODEL = (Reason.MODEL_NOT_FOUND, Reason.RATE_LIMITED, Reason.NOT_IMPLEMENTED, Reason.DEADLINE_EXCEEDED)
"""Of every endpoint that asks a model for something."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. It has an ``answer`` for callers with a key, or is open and answers everybody.

    Attributes:
        path: exact; or with one segment ``{…}`` that is anything, the last one or the one before it.
        operation: its name in metrics and logs.
        needs: role that a key must have; ``ability``: what it must be made for.
        answer: writes the response for an authenticated request.
        answer_openly: writes the response for anybody, by what requests work with; no key is looked at.
        summary, body, produces: what it is, takes and gives, for the OpenAPI document; what gives nothing only refuses.
        refusals: why it may refuse, beside what the door and an `Idempotency-Key` do: one reason for each status.
        neutral: what else it takes, where that is without effect.
        dialect: how its errors are written; ``dialect_of_anthropic``: for clients of that API, where it differs.
        is_made_once: whether an `Idempotency-Key` makes repeats join or get the first answer.
        query: parameters of its query string, and what they are; ``query_lists``: those of them that may come several
            times. Others are refused, as unknown members of a body are.
        takes_any_query: whatever its query says is nothing to it; for pages and what scrapers read.
    """

    method: str
    path: str
    operation: str
    needs: Role = Role.APP
    ability: Ability = Ability.INFERENCE
    answer: Callable[[Client, Request], Awaitable[None]] | None = None
    answer_openly: Callable[[Client, Collaborators], Awaitable[None]] | None = None
    summary: str = ""
    body: type[BaseModel] | None = None
    neutral: Mapping[str, Neutral] = field(default_factory=dict)
    produces: Sequence[str] = ("application/json",)
    dialect: Dialect = OPENAI
    dialect_of_anthropic: Dialect | None = None
    is_made_once: bool = False
    query: Mapping[str, str] = field(default_factory=dict)
    query_lists: Collection[str] = ()
    takes_any_query: bool = False
    refusals: Sequence[Reason] = ()

    @property
    def reasons(self) -> Sequence[Reason]:
        """Why a request that finds it may be refused: one reason, or more, for each status that it may end with."""
        if self.is_open:
            return self.refusals
        return (*OF_THE_DOOR, *self.refusals, *([Reason.IDEMPOTENCY_CONFLICT] if self.is_made_once else []))

    @property
    def dialects(self) -> Sequence[Dialect]:
        """Each way in which its errors are written."""
        return (self.dialect, self.dialect_of_anthropic) if self.dialect_of_anthropic else (self.dialect,)

    @property
    def is_open(self) -> bool:
        """True when no key is needed."""
        return self.answer_openly is not None


class MethodNotAllowed(MeshError):
    """The path exists, with other methods."""

    def __init__(self, allowed: Sequence[str], dialect: Dialect) -> None:
        super().__init__(
            Reason.METHOD_NOT_ALLOWED, f"this path does not take that method; it takes {', '.join(allowed)}"
        )
        self.allowed = allowed
        self.dialect = dialect


class Endpoints:
    """All endpoints of a door."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.all = tuple(endpoints)
        self._exact: dict[bytes, dict[str, Endpoint]] = {}
        self._below: dict[tuple[bytes, bytes], dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            path, opening, rest = endpoint.path.partition("{")
            if opening:
                where = self._below.setdefault((path.encode(), rest.partition("}")[2].encode()), {})
            else:
                where = self._exact.setdefault(path.encode(), {})
            where[endpoint.method] = endpoint

    def find(self, method: str, raw_path: bytes) -> Endpoint:
        """The endpoint of a method and a path as it was sent: nothing is decoded, nothing is normalised.

        Raises:
            MeshError: NOT_FOUND; :class:`MethodNotAllowed`.
        """
        above, slash, last = raw_path.rpartition(b"/")
        methods = (
            self._exact.get(raw_path)
            or self._below.get((above + slash, b""))
            or self._below.get((above[: above.rfind(b"/") + 1], slash + last))
        )
        if methods is None:
            raise MeshError(Reason.NOT_FOUND, "there is nothing at this path; GET /openapi.json lists what there is")
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(sorted(methods), next(iter(methods.values())).dialect)
        return endpoint
