"""What every HTTP request passes: a name, a size, a key, one endpoint; and what becomes of its errors.

The raw path alone decides which endpoint answers and which role it needs, in one look-up, so there is no second reading
of the URL that could disagree; only endpoints marked open need no key. Knows nothing about what endpoints do.
"""

import base64
import binascii
import math
import re
from contextlib import suppress

from serin_mesh.call import KEEPALIVE_KEY, LANE_KEY, new_request_id
from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse
from serin_gateway.collaborators import Arrival, Collaborators, is_request_id
from serin_gateway.journal import report_defect
from serin_gateway.keys.records import Ability
from serin_gateway.limits.leases import RateLimited
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client, ClientGone, Headers, Receive, Scope, Send
from serin_gateway.rest.endpoint import Endpoint, Endpoints, MethodNotAllowed
from serin_gateway.rest.errors import ANTHROPIC, OPENAI, Dialect, ToldInStream, error_headers, internal_error
from serin_gateway.rest.headers import ignored_headers, limit_headers, without_limits
from serin_gateway.rest.keepalive import MAX_EVERY_S, asked_every_s
from serin_gateway.rest.query import read_query
from serin_gateway.rest.repeatable import IDEMPOTENCY_KEY, RepeatableAnswer
from serin_gateway.rest.tracing import request_span
from serin_gateway.routing.cascade_journey import HINT_KEY
from serin_gateway.steering import SESSION_KEY, check_credentials, check_steering

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768
_ONCE = frozenset(
    {
        b"authorization",
        b"x-api-key",
        LANE_KEY.encode(),
        HINT_KEY.encode(),
        IDEMPOTENCY_KEY,
        SESSION_KEY.encode(),
        b"x-request-timeout",
        b"content-encoding",
    }
)
"""Headers that decide something: of two, whoever stands between may have read the other one."""
_BELOW_MESSAGES = b"/v1/messages/"
"""Paths that no other API has."""
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class Door:
    """The ASGI application.

    Args:
        house: what requests work with.
        endpoints: all that is behind this door.
        timeout_s: longest time for one answer.
    """

    def __init__(self, house: Collaborators, endpoints: Endpoints, *, timeout_s: float = 600.0) -> None:
        self.endpoints = endpoints
        self._house = house
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        client = Client(scope, receive, send, [])
        given = client.header(b"x-request-id")
        request_id = given if given is not None and is_request_id(given) else new_request_id()
        ignored = ["x-request-id"] if given not in (None, request_id) else []
        client.headers += [(b"x-request-id", request_id.encode()), *ignored_headers(ignored)]
        try:
            endpoint, missing = self.endpoints.find(scope["method"], scope["raw_path"]), None
        except MeshError as error:
            endpoint, missing = None, error
        if endpoint is not None and endpoint.answer_openly is not None:
            await endpoint.answer_openly(client, self._house)
            return
        request = Request(self._house, self._arrival(request_id, client))
        with request_span(scope["headers"], request.receipt):
            await self._answer(client, request, endpoint, missing)

    async def _answer(
        self, client: Client, request: Request, endpoint: Endpoint | None, missing: MeshError | None
    ) -> None:
        ended_by: BaseException | None = None
        if endpoint is not None:
            request.receipt.operation = endpoint.operation
        dialect = _dialect(client, endpoint, missing)
        if dialect.request_id_header:
            client.headers.append((dialect.request_id_header, request.receipt.request_id.encode()))
        try:
            _check_headers(client.scope["headers"])
            check_credentials(request.arrival.key, client.header(b"x-api-key"))
            if not request.arrival.timeout_s:
                raise MeshError(
                    Reason.PARAMETER_INVALID,
                    f"x-request-timeout: accepted: seconds, above 0, for example 2.5; this mesh allows up to "
                    f"{self._timeout_s:g}",
                    parameter="x-request-timeout",
                )
            if endpoint is None:  # who has no key is not told what exists
                await request.authenticate(ability=None)
                assert missing is not None
                raise missing
            await request.authenticate(endpoint.needs, endpoint.ability)
            assert endpoint.answer is not None
            _read_query(client, request, endpoint)
            key = client.header(IDEMPOTENCY_KEY) if endpoint.is_made_once else None
            if key is None:
                await endpoint.answer(client, request)
            else:
                await RepeatableAnswer(self._house.idempotency, endpoint, client, request).give(key)
        except MeshError as refusal:
            ended_by = refusal
            await _refuse(client, request, refusal, dialect)
        except ClientGone:
            ended_by = MeshError(Reason.CANCELLED, "the client is gone")
        except Exception as defect:  # noqa: BLE001 - one request's defect is not another's
            ended_by = defect
            report_defect(defect, request.receipt.request_id)
            await _refuse(client, request, internal_error(request.receipt.request_id), dialect)
        except BaseException as cancelled:
            ended_by = cancelled
            raise
        finally:
            if not request.outlives_caller:
                await request.settle(ended_by)
            ended_by = None  # its traceback holds this frame, and what was asked: it must not wait for a collection

    def _arrival(self, request_id: str, client: Client) -> Arrival:
        return Arrival(
            "rest",
            request_id,
            key=_key(client),
            session_id=client.header(SESSION_KEY.encode()) or "",
            pinned_lane=client.header(LANE_KEY.encode()) or "",
            cascade_hint=client.header(HINT_KEY.encode()) or "",
            timeout_s=min(self._timeout_s, _asked_timeout_s(client)),
        )


def _dialect(client: Client, endpoint: Endpoint | None, missing: MeshError | None) -> Dialect:
    """How errors are written: as the endpoint's API does, and where several have it, or nobody, the client's."""
    if endpoint is not None:
        return (client.speaks_anthropic and endpoint.dialect_of_anthropic) or endpoint.dialect
    if client.speaks_anthropic or client.scope["raw_path"].startswith(_BELOW_MESSAGES):
        return ANTHROPIC
    return missing.dialect if isinstance(missing, MethodNotAllowed) else OPENAI


def _read_query(client: Client, request: Request, endpoint: Endpoint) -> None:
    """Give the client's exchange what its query says, if the endpoint knows all of it; administration always does."""
    if endpoint.takes_any_query:
        return
    unknown = "refuse" if endpoint.ability is Ability.ADMINISTRATION else request.caller.unknown
    text = client.scope["query_string"]
    client.query, ignored = read_query(text, endpoint.query, endpoint.query_lists, unknown)
    client.headers += ignored_headers(ignored)


async def _refuse(client: Client, request: Request, error: MeshError, dialect: Dialect) -> None:
    """Tell the client what went wrong: as a response, or inside the stream that has begun."""
    request_id = request.receipt.request_id
    if client.has_started:
        told = isinstance(error, ToldInStream)
        with suppress(ClientGone):
            await client.write(b"" if told else dialect.in_stream(error, request_id, client.last_written), more=False)
        return
    await request.settle(error)  # first, so that what was reserved is free when the client tries again
    standing = error.standing if isinstance(error, RateLimited) else request.standing
    # An answer that fails after its first event has said already where the caller stood then.
    client.headers = [*without_limits(client.headers), *error_headers(error)]
    if standing is not None:
        client.headers += limit_headers(standing)
    if error.status.http == 401:
        scheme = b'Basic realm="Serin: any name, an API key as password"' if client.is_browser else b"Bearer"
        client.headers.append((b"www-authenticate", scheme))
    if isinstance(error, MethodNotAllowed):
        client.headers.append((b"allow", ", ".join(error.allowed).encode()))
    with suppress(ClientGone):
        await client.respond(dialect.status(error), dialect.body(error, request_id))


def _asked_timeout_s(client: Client) -> float:
    """How long the client says that it waits, if it does; 0: what it says is no such time."""
    text = client.header(b"x-request-timeout")
    if text is None:
        return math.inf
    return float(text) if _SECONDS.fullmatch(text) else 0.0


def _check_headers(headers: Headers) -> None:
    num_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
        raise MeshError(
            Reason.BODY_TOO_LARGE,
            f"the headers are too large; accepted: {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes in all",
        )
    decisive = [name for name, _ in headers if name in _ONCE]
    if len(decisive) > len(set(decisive)):
        name = next(name for name in decisive if decisive.count(name) > 1).decode()
        raise MeshError(Reason.PARAMETER_INVALID, f"{name}: is there twice; accepted: once", parameter=name)
    if asked_every_s(headers) == 0:
        raise refuse(KEEPALIVE_KEY, f"accepted: whole seconds, 1 to {MAX_EVERY_S}, or left out")
    check_steering((name.decode(), value.decode("latin-1")) for name, value in headers if name in _ONCE)


def _key(client: Client) -> str | None:
    """The key of `Authorization: Bearer`, of `X-Api-Key`, or the password of a browser's `Authorization: Basic`."""
    scheme, _, value = (client.header(b"authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and client.is_browser:
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return client.header(b"x-api-key")
