"""The REST door: who gets in, what it is told, and what becomes of errors."""

import asyncio
import base64
import json
import re

import httpx
import pytest
from serin_gateway.catalog import Catalog, Policy, ServedModel, Worker
from serin_gateway.events import FinishReason
from serin_gateway.keys import Role
from serin_gateway.keys.records import Ability
from serin_gateway.limits.limiter import Limits, Standing, Window
from serin_gateway.placement import Placement
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.errors import OPENAI
from serin_gateway.rest.headers import limit_headers
from serin_gateway.rest.openapi import document
from serin_gateway.testing import MemoryHouse, MemoryLoads, saying, small_lane
from serin_gateway.worker import ChoiceMade, TokensMade, WorkStarted
from serin_mesh.errors import MeshError, Reason
from serin_mesh.readiness import Readiness, State

from conftest import NO_TLS

OPEN = {"/live", "/ready"}


async def raw(front, head: bytes) -> tuple[int, bytes]:
    """Status and all bytes that a raw request is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
    writer.write(head)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


def error(response: httpx.Response) -> dict:
    """The error of a response, checked for OpenAI's shape."""
    body = response.json()["error"]
    assert {"message", "type", "param", "code"} <= set(body)
    assert response.headers["x-request-id"]
    return body


async def test_every_endpoint_but_two_needs_a_key(front):
    """Found on the application itself: a new endpoint that needs none fails here."""
    endpoints = rest_endpoints(Readiness()).all
    assert {endpoint.path for endpoint in endpoints if endpoint.is_open} == OPEN
    async with httpx.AsyncClient(base_url=front.url) as stranger:
        for endpoint in endpoints:
            response = await stranger.request(endpoint.method, endpoint.path.replace("{model}", "small"))
            if endpoint.path in OPEN:
                assert response.status_code == 200
            else:
                told = error(response) if endpoint.dialect is OPENAI else response.json()["error"]
                assert (response.status_code, told["reason"]) == (401, "KEY_MISSING")
                assert response.headers["www-authenticate"]


async def test_roles_are_needed_where_they_are_named(front):
    """Each endpoint refuses the role below the one it needs."""
    for role in Role:
        key = await front.house.key(role)
        response = await front.http.get("/metrics", headers={"authorization": f"Bearer {key}"})
        if role.covers(Role.VIEWER):
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/plain")
        else:
            assert (response.status_code, error(response)["reason"]) == (403, "ROLE_INSUFFICIENT")
        assert front.house.journal.receipts[-1].operation == "metrics", "what was refused is named too"


@pytest.mark.parametrize(
    "target",
    [
        b"//v1/models",
        b"/v1/models;x=y",
        b"/v1/%2e%2e/live",
        b"/live/../v1/models",
        b"/live%2f..%2fv1%2fmodels",
        b"/live/",
        b"/live;",
        b"/LIVE",
        b"/ready%20",
        b"http://x/v1/models",
        b"http://x/live?/../v1/models",
        b"/v1/models/%73mall",
        b"/v1/chat/completions/",
        b"/v1/\xff\x80",
        b"*",
    ],
)
async def test_a_path_is_read_once(front, target: bytes):
    """Whatever a URL looks like: open as `/live` itself, asked for a key, or refused; never let through."""
    status, answer = await raw(front, b"GET " + target + b" HTTP/1.1\r\nHost: x/live?\r\nConnection: close\r\n\r\n")
    if b"live?" in target and status == 200:
        assert b'"state"' in answer
    else:
        assert status in (400, 401), answer
    assert b"small" not in answer


async def test_host_and_forwarding_headers_decide_nothing(front):
    """Only the request line's path does."""
    for header in (b"Host: /live", b"Host: x/?", b"X-Original-URL: /live", b"X-Forwarded-Prefix: /live"):
        status, _ = await raw(front, b"GET /v1/models HTTP/1.1\r\n" + header + b"\r\nConnection: close\r\n\r\n")
        assert status in (400, 401)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /live HTTP/9.9\r\n\r\n",
    ],
)
async def test_broken_http_is_refused(front, head: bytes):
    """400 and the connection is closed."""
    status, _ = await raw(front, head + b"\r\n" * 4)
    assert status in (400, 401)


async def test_headers_are_bounded(front):
    """Too many, or too long: refused, whether they end or not."""
    many = b"".join(b"x-%d: y\r\n" % n for n in range(150))
    status, answer = await raw(front, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + many + b"\r\n")
    assert (status, b"headers" in answer) == (413, True)
    status, _ = await raw(front, b"GET /live HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 100_000)
    assert status == 431


async def test_keys_come_as_bearer_or_x_api_key(front):
    """Any capitalisation of the scheme; Basic only where people look."""
    async with httpx.AsyncClient(base_url=front.url) as client:
        for headers in (
            {"authorization": f"bearer {front.key}"},
            {"Authorization": f"BEARER  {front.key}"},
            {"x-api-key": front.key},
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        basic = {"authorization": "Basic " + base64.b64encode(f"me:{front.key}".encode()).decode()}
        assert (await client.get("/docs", headers=basic)).status_code == 200
        assert (await client.get("/v1/models", headers=basic)).status_code == 401
        assert (await client.get("/docs", headers={"authorization": "Basic !!!"})).status_code == 401


async def test_two_keys_are_one_or_refused(front):
    """The same key in both headers is one; of two, another reader may take the other. Basic is none."""
    other = await front.house.key()
    async with httpx.AsyncClient(base_url=front.url, verify=NO_TLS) as client:
        for shown, status in ((f"Bearer {front.key}", 200), (f"Bearer {other}", 400), ("Basic bWU6eW91", 200)):
            answer = await client.get("/v1/models", headers={"authorization": shown, "x-api-key": front.key})
            assert answer.status_code == status
            if status == 400:
                assert (error(answer)["reason"], error(answer)["param"]) == ("PARAMETER_INVALID", "authorization")


async def test_keys_that_cannot_be_checked(front):
    """503 with retry-after, never 401."""
    front.house.keys.down = True
    response = await front.http.get("/v1/models")
    assert (response.status_code, error(response)["reason"]) == (503, "AUTH_UNAVAILABLE")
    assert response.headers["retry-after"] == "2"


async def test_everybody_may_ask_where_policy_says_so(front):
    """Without a key: the anonymous tenant, role app; a wrong key stays wrong."""
    front.house.catalog.publish(
        Catalog([ServedModel("small", lanes=[small_lane()])], policy=Policy(allow_anonymous=True))
    )
    async with httpx.AsyncClient(base_url=front.url) as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/metrics")).status_code == 403
        wrong = await client.get("/v1/models", headers={"authorization": "Bearer x"})
        assert wrong.status_code == 401


async def test_request_ids_are_kept_when_they_are_sane(front):
    """The caller's own, or one of ours, and then it is told; in the header and in the answer's id."""
    kept = await front.http.get("/v1/models", headers={"x-request-id": "abc-1.2_3"})
    assert kept.headers["x-request-id"] == "abc-1.2_3"
    assert "x-serin-ignored" not in kept.headers
    for odd in ("a b", "x" * 101, "é", "a/b", ""):
        replaced = await front.http.get("/v1/models", headers={"x-request-id": odd.encode("latin-1")})
        assert replaced.headers["x-request-id"].startswith("req-")
        assert replaced.headers["x-serin-ignored"] == "x-request-id"


async def test_no_query_is_silently_ignored(front):
    """Every endpoint that needs a key refuses a parameter that it does not know, before anything is done."""
    key = await front.house.key(Role.ADMIN, abilities=frozenset(Ability))
    pages = {"/metrics", "/docs", "/openapi.json"}
    async with httpx.AsyncClient(base_url=front.url, headers={"x-api-key": key}, verify=NO_TLS) as client:
        for endpoint in rest_endpoints(Readiness()).all:
            path = endpoint.path.replace("{", "").replace("}", "") + "?api-version=2026-01-01"
            response = await client.request(endpoint.method, path)
            if endpoint.is_open or endpoint.path in pages:
                assert response.status_code == 200, endpoint.path
            else:
                told = response.json()["error"]
                assert (response.status_code, told["reason"]) == (400, "PARAMETER_UNKNOWN"), endpoint.path
                assert "'api-version' is no parameter" in told["message"]


async def test_a_key_may_ask_to_be_warned_of_its_query_only(front):
    """Made with `unknown: warn`: it is told, for a repeat too; by administration it is refused."""
    key = await front.house.key(Role.ADMIN, abilities=frozenset(Ability), unknown="warn")
    body = {"model": "small", "prompt": "hi", "colour": 1}
    async with httpx.AsyncClient(base_url=front.url, headers={"x-api-key": key}, verify=NO_TLS) as client:
        for _ in range(2):
            answer = await client.post("/v1/completions?api-version=1&x", json=body, headers={"idempotency-key": "one"})
            assert (answer.status_code, answer.headers["x-serin-ignored"]) == (200, "api-version, x, colour")
        refused = await client.put("/admin/projects/x?organization=acme", json={})
        assert (refused.status_code, error(refused)["param"]) == (400, "organization")
        assert (await client.get("/admin/tenants")).json()["projects"] == []


async def test_unknown_paths_and_methods(front):
    """404 and 405 in OpenAI's shape, once the key is right; HEAD is GET without a body."""
    missing = await front.http.get("/v1/nothing")
    assert (missing.status_code, error(missing)["reason"]) == (404, "NOT_FOUND")
    wrong = await front.http.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (error(wrong)["code"], error(wrong)["reason"]) == ("method_not_allowed", "METHOD_NOT_ALLOWED")
    head = await front.http.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")


async def test_bodies_are_bounded(front):
    """413 by declared length and by what comes; a compressed body is refused by the header's name."""
    front.house.catalog.publish(
        Catalog([ServedModel("small", lanes=[small_lane()])], policy=Policy(max_body_bytes=1000))
    )

    async def pieces():
        for _ in range(30):
            yield b"x" * 100

    for content in (b"x" * 1001, pieces()):
        response = await front.http.post("/v1/completions", content=content)
        assert (response.status_code, error(response)["reason"]) == (413, "BODY_TOO_LARGE")
    squeezed = await front.http.post("/v1/completions", content=b"x", headers={"content-encoding": "gzip"})
    assert (squeezed.status_code, error(squeezed)["param"]) == (400, "content-encoding")
    assert (await front.chat()).status_code == 200


async def test_limits_are_shown_and_refused_with_a_time(front):
    """`x-ratelimit-*` with every answer, 429 with retry-after, and the SDK is told that a retry makes sense."""
    key = await front.house.key(limits=Limits(requests_per_minute=2, tokens_per_minute=5000))
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "small", "prompt": "hi"}
    first = await front.http.post("/v1/completions", json=body, headers=headers)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    for what in ("requests", "tokens"):  # some of both is taken, for up to 61 s
        assert re.fullmatch(r"[1-5][0-9](\.[0-9]+)?s|1m[01]s", first.headers[f"x-ratelimit-reset-{what}"])
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 5000
    await front.http.post("/v1/completions", json=body, headers=headers)
    refused = await front.http.post("/v1/completions", json=body, headers=headers)
    assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"), (0.0001, "1ms"), (0.017, "17ms"), (0.9991, "1s"), (1.0, "1s"), (12.34, "12.34s"),
        (59.999, "59.999s"), (59.9999, "1m0s"), (60.375, "1m1s"), (360.0, "6m0s"), (3600.0, "1h0m0s"),
        (86_399.0, "23h59m59s"),
    ],
)  # fmt: skip
def test_when_a_limit_is_whole_again_is_told_as_openai_does(seconds: float, text: str):
    """A duration with units, never less than it is."""
    headers = dict(limit_headers(Standing(tokens=Window(10, 5, seconds, "key"))))
    assert headers[b"x-ratelimit-reset-tokens"].decode() == text


async def test_one_after_the_other_fits_into_one_slot(front):
    """What was reserved is free before the client knows that its answer is complete, whatever the answer is."""
    key = await front.house.key(limits=Limits(concurrent_requests=1))
    headers = {"authorization": f"Bearer {key}"}
    for stream in (False, True) * 5:
        body = {"model": "small", "prompt": "hi", "stream": stream}
        assert (await front.http.post("/v1/completions", json=body, headers=headers)).status_code == 200
        wrong = {"model": "small", "prompt": "x" * 2000}
        assert (await front.http.post("/v1/completions", json=wrong, headers=headers)).status_code == 400


async def test_a_defect_is_ours_and_says_nothing(fronts):
    """500 with the request's id; the exception's text stays here, and the next request is answered."""

    def broken(worker, order):
        raise RuntimeError("secret prompt text")

    async with fronts(broken) as front:
        response = await front.chat()
        assert (response.status_code, error(response)["reason"]) == (500, "INTERNAL")
        assert response.headers["x-request-id"] in error(response)["message"]
        assert "secret" not in response.text
        assert (await front.http.get("/v1/models")).status_code == 200
        assert front.house.journal.receipts[0].reason == "INTERNAL"


async def test_an_error_inside_a_stream(fronts):
    """After the first token: an error event with the same shape, no [DONE]."""

    def failing(worker, order):
        return [WorkStarted("w", 0, 0), TokensMade(0, 0, list(b"ab"), []), MeshError(Reason.NUMERICS_FAILED, "NaN")]

    async with fronts(failing) as front:
        response = await front.chat(stream=True)
        assert response.status_code == 200
        *_, last = [line for line in response.text.split("\n\n") if line]
        assert last.startswith('data: {"error":')
        assert "NUMERICS_FAILED" in last
        assert "[DONE]" not in response.text


async def test_an_answer_that_fails_after_its_first_event_says_once_where_the_caller_stands(fronts):
    """Not streamed: headers of the answer that was to come are not sent beside those of the error."""

    def failing(worker, order):
        return [WorkStarted("w", 0, 0), TokensMade(0, 0, list(b"ab"), []), MeshError(Reason.NUMERICS_FAILED, "NaN")]

    async with fronts(failing) as front:
        key = await front.house.key(limits=Limits(tokens_per_minute=1000, requests_per_minute=10))
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {key}"}
        response = await front.http.post("/v1/chat/completions", json=body, headers=headers)
        assert error(response)["reason"] == "NUMERICS_FAILED"
        names = [name for name, _ in response.headers.multi_items() if name.startswith("x-ratelimit-")]
        assert len(names) == len(set(names)) == 6


async def test_an_error_before_the_first_token_has_its_own_status(fronts):
    """Also for a stream: nothing was promised yet."""

    def full(worker, order):
        return [MeshError(Reason.QUEUE_FULL, "full", retry_after_s="3")]

    async with fronts(full) as front:
        response = await front.chat(stream=True)
        assert (response.status_code, response.headers["retry-after"]) == (503, "3")


async def test_a_client_that_leaves_ends_the_work(fronts):
    """While streaming, and while waiting for a whole answer: work is aborted and the request settled as cancelled."""
    async with fronts(saying("x" * 60)) as front:
        workers = front.house.workers
        for stream in (True, False):
            workers.hold.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
            body = b'{"model":"small","prompt":"hi","stream":%b}' % (b"true" if stream else b"false")
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
                % (front.key.encode(), len(body), body)
            )
            async with asyncio.timeout(60):
                await workers.until_running(1)
                writer.close()
                await workers.until_running(0)
                await front.house.journal.until_closed(2 - stream)
            assert front.house.journal.receipts[-1].reason == "CANCELLED"


async def test_a_deadline_is_504(fronts):
    """Nothing is waited for longer than the door allows."""
    async with fronts(timeout_s=0.05) as front:
        front.house.workers.hold.clear()
        response = await front.chat()
        assert (response.status_code, error(response)["reason"]) == (504, "DEADLINE_EXCEEDED")
        front.house.workers.hold.set()


async def test_live_ready_and_draining(front):
    """Ready while it is; afterwards 503 with a hint; a stalled process is not alive."""
    async with httpx.AsyncClient(base_url=front.url) as stranger:
        assert (await stranger.get("/ready")).json()["state"] == State.READY.value
        front.readiness.draining()
        refused = await stranger.get("/ready")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await stranger.get("/live")).status_code == 200


async def test_ready_and_the_models_tell_the_same(fronts_on):
    """`/ready` while any model would answer, not when none would: no worker, no tokenizer, silent ones, no model."""
    loads = MemoryLoads()
    house = MemoryHouse(placement=Placement(loads=loads))
    near = small_lane("near", workers=[Worker("w", "near:1", "c")], tokenizers=["near:2"])
    far = small_lane("far", workers=[Worker("w", "far:1", "c")], tokenizers=["far:2", "far:3"])
    several = Catalog([ServedModel("small", lanes=[near]), ServedModel("other", lanes=[far])])
    lonely = [
        Catalog([ServedModel("small", lanes=lanes)])
        for lanes in ([small_lane(workers=[])], [small_lane(tokenizers=[])], [small_lane(weight=0)], [])
    ]
    async with fronts_on(house) as front, httpx.AsyncClient(base_url=front.url) as balancer:
        for catalog, silent, serving in (
            (several, [], {"small", "other"}),
            (several, ["near:1"], {"other"}),
            (several, ["near:2"], {"other"}),
            (several, ["near:1", "far:2"], {"other"}),
            (several, ["near:2", "far:2", "far:3"], set()),
            (several, ["near:1", "far:1"], set()),
            *((catalog, [], set()) for catalog in lonely),
            (Catalog(), [], set()),
            (several, [], {"small", "other"}),
        ):
            house.catalog.publish(catalog)
            loads.silent = set(silent)
            models = (await front.http.get("/v1/models")).json()["data"]
            assert {model["id"] for model in models if model["ready"]} == serving
            ready = await balancer.get("/ready")
            assert ready.status_code == (200 if serving else 503)
            assert ready.json()["state"] == ("ready" if serving else "waiting")
            assert ready.headers.get("retry-after") == (None if serving else "1")
            assert (await balancer.get("/live")).status_code == 200
        house.catalog.publish(several)
        loads.silent = {"near:1", "far:1"}
        asked = await front.chat()
        assert (asked.status_code, error(asked)["reason"]) == (503, "NOT_READY")
        assert int(asked.headers["retry-after"]) > 0


async def test_models_are_listed_by_every_name(front):
    """Aliases too; one by one as well; another is 404."""
    listed = [model async for model in front.openai.models.list()]
    assert [model.id for model in listed] == ["demo", "small"]
    assert listed[0].model_extra["alias_of"] == "small"
    assert (await front.openai.models.retrieve("demo")).id == "demo"
    missing = await front.http.get("/v1/models/nope")
    assert (missing.status_code, error(missing)["reason"]) == (404, "MODEL_NOT_FOUND")


async def test_the_document_describes_every_endpoint(front):
    """OpenAPI 3.1 with a schema for each body; the page names every path."""
    document = (await front.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    paths = {(endpoint.path, endpoint.method.lower()) for endpoint in rest_endpoints(Readiness()).all}
    assert {(path, method) for path, item in document["paths"].items() for method in item} == paths
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].rpartition("/")[2] in document["components"]["schemas"]
    page = (await front.http.get("/docs")).text
    assert all(path in page for path, _ in paths)
    assert "http://" not in page
    assert "https://" not in page


def test_the_document_declares_the_statuses_that_an_endpoint_may_end_with():
    """No more than can come: a list of models has no deadline, Anthropic's API says 529, what only refuses no 200."""
    paths = json.loads(document(rest_endpoints(Readiness()).all, "0"))["paths"]
    key = {"200", "400", "401", "403", "413", "500", "503"}
    model = key | {"404", "429", "501", "504"}
    for method, path, expected in (
        ("post", "/v1/chat/completions", model | {"409"}),
        ("post", "/v1/responses", model | {"409"}),
        ("post", "/tokenize", model),
        ("post", "/v1/messages", (model | {"409", "529"}) - {"503"}),
        ("post", "/v1/messages/count_tokens", (model | {"529"}) - {"503"}),
        ("get", "/v1/models", key | {"529"}),
        ("get", "/v1/models/{model}", key | {"404", "529"}),
        ("post", "/v1/responses/{response_id}/cancel", (key | {"404"}) - {"200"}),
        ("post", "/v1/feedback", key | {"404"}),
        ("put", "/admin/projects/{project}", key | {"409"}),
        ("put", "/admin/organizations/{organization}", key),
        ("get", "/metrics", key),
        ("get", "/ready", {"200", "503"}),
    ):
        assert set(paths[path][method]["responses"]) == expected, path
    kinds = {tuple(sorted(one["responses"])) for item in paths.values() for one in item.values()}
    assert len(kinds) > 5


async def test_a_drain_lets_running_answers_finish(fronts):
    """The server stops accepting; an answer that runs is given whole."""
    async with fronts(saying("x" * 40)) as front:
        workers = front.house.workers
        workers.hold.clear()
        running = asyncio.create_task(front.chat())
        await workers.until_running(1)
        draining = asyncio.create_task(front.server.drain())
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
                except OSError:
                    break
                writer.close()
                await asyncio.sleep(0.01)
        workers.hold.set()
        response = await running
        assert response.json()["choices"][0]["message"]["content"] == "x" * 40
        await draining


def test_finish_reasons_have_openai_names():
    """What the API writes."""
    assert [str(reason) for reason in FinishReason] == ["stop", "length", "tool_calls", "content_filter"]
    assert ChoiceMade(0, FinishReason.STOP, None).finish_reason == "stop"
