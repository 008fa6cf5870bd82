"""What callers are told of kept responses, and how long anybody waits for them."""

import orjson
import pytest
from openai.types.responses import ResponseErrorEvent
from serin.control.v1 import config_pb2, lane_pb2
from serin_gateway.catalog import Policy
from serin_gateway.responses import MemoryResponses, RedisResponses, ResponseDesk
from serin_gateway.responses.desk import MAX_RESPONSE_BYTES, MAX_TURNS
from serin_gateway.responses.identifier import conversation_of, new_response_id, request_of
from serin_gateway.responses.store import Bounds, ResponsesDown, StoredResponse
from serin_gateway.rest.endpoint import Endpoint, Endpoints, MethodNotAllowed
from serin_gateway.rest.errors import RESPONSES, ToldInStream
from serin_gateway.state import BudgetedResponses, StateCalls, open_state
from serin_gateway.upstream.lanes import to_catalog
from serin_mesh.errors import MeshError, Reason
from valkey_process import Valkey

BOUNDS = Bounds(1000.0, 1 << 30)


def test_identifiers_name_their_request_and_conversation():
    """And nothing else: they are nobody's to guess; what is no identifier names nothing."""
    first = new_response_id("req-1.a")
    second = new_response_id("x", first)
    assert (request_of(first), request_of(second)) == ("req-1.a", "x")
    assert conversation_of(first) == conversation_of(second) != conversation_of(new_response_id("req-1.a"))
    assert first != new_response_id("req-1.a", first)
    for odd in ("", "resp_", "resp_x", f"resp_.{'0' * 48}", f"resp_a.{'0' * 47}", f"resp_a.{'0' * 48}\n", f"x{first}"):
        assert (request_of(odd), conversation_of(odd)) == ("", "")
    assert conversation_of(new_response_id("a", "resp_odd"))


async def test_a_conversation_has_an_end():
    """After so many responses it is refused by name."""
    desk = ResponseDesk(MemoryResponses())
    previous = ""
    for number in range(MAX_TURNS + 1):
        if number == MAX_TURNS:
            assert len((await desk.conversation("t", previous, 1 << 20)).turns) == MAX_TURNS
        one = StoredResponse(new_response_id(f"r{number}", previous), b"{}", b"[]", b"[]", previous)
        assert await desk.keep("t", one, BOUNDS)
        previous = one.response_id
    with pytest.raises(MeshError, match=f"has {MAX_TURNS} responses") as refused:
        await desk.conversation("t", previous, 1 << 20)
    assert refused.value.metadata["parameter"] == "previous_response_id"


async def test_a_response_that_is_too_large_is_not_kept():
    """It is delivered; its keeper is told why."""
    told: list[str] = []
    desk = ResponseDesk(MemoryResponses(), told.append)
    one = StoredResponse(new_response_id("r"), b"{}", b"x" * MAX_RESPONSE_BYTES, b"[]")
    assert not await desk.keep("t", one, BOUNDS)
    assert told == ["large"]


async def test_a_hanging_redis_costs_its_budget_and_then_nothing(tmp_path):
    """What takes longer is given up; after three times in a row nobody waits."""
    with Valkey(tmp_path) as valkey:
        redis = open_state(valkey.url)
        store = BudgetedResponses(RedisResponses(redis), StateCalls("responses", 0.1))
        one = StoredResponse(new_response_id("r"), b"{}", b"[]", b"[]")
        await store.reach()
        await store.put("t", one, BOUNDS)
        assert await store.find("t", one.response_id) == (b"{}", b"[]")
        assert await store.find_input("t", one.response_id) == b"[]"
        assert len((await store.walk("t", one.response_id, 1, 100)).turns) == 1
        valkey.hang()
        for _ in range(3):
            with pytest.raises(ResponsesDown):
                await store.find("t", one.response_id)
        with pytest.raises(ResponsesDown, match="not tried"):
            await store.delete("t", one.response_id)
        valkey.go_on()
        await redis.aclose()


def test_an_error_behind_a_broken_stream_goes_on_counting():
    """Whoever follows an answer that another gateway made hears of its end as an event, in its place."""
    error = MeshError(Reason.UPSTREAM_UNAVAILABLE, "it is gone")
    written = b'event: a\ndata: {"type":"response.created","sequence_number":6,"response":{"metadata":{}}}\n\n'
    written += b'event: b\ndata: {"type":"response.in_progress","sequence_number":7,"x":{"sequence_number":99}}\n\n'
    head, data = RESPONSES.in_stream(error, "r", written).removesuffix(b"\n\n").split(b"\n")
    event = ResponseErrorEvent.model_validate(orjson.loads(data.removeprefix(b"data: ")))
    assert (head, event.sequence_number, event.code, event.message) == (
        b"event: error", 8, "upstream_unavailable", "it is gone",
    )  # fmt: skip
    told = ToldInStream(MeshError(Reason.LANE_LOST, "no worker", parameter="p"))
    assert (told.reason, told.message, dict(told.metadata)) == (Reason.LANE_LOST, "no worker", {"parameter": "p"})


def test_a_path_may_go_on_behind_what_it_names():
    """One segment is anything, wherever it stands; nothing is found deeper, and methods are told apart."""
    endpoints = Endpoints(
        [
            Endpoint("GET", "/v1/x/{id}", "x"),
            Endpoint("GET", "/v1/x/{id}/items", "items"),
            Endpoint("POST", "/v1/x/{id}/cancel", "cancel"),
        ]
    )
    assert endpoints.find("GET", b"/v1/x/a").operation == "x"
    assert endpoints.find("GET", b"/v1/x/items").operation == "x"
    assert endpoints.find("GET", b"/v1/x/a/items").operation == "items"
    assert endpoints.find("POST", b"/v1/x/a/cancel").operation == "cancel"
    for path in (
        b"/v1/x",
        b"/v1/x/a/b",
        b"/v1/x/a/items/",
        b"/v1/x/a/b/items",
        b"/v1/items",
        b"/items",
        b"/",
        b"",
        b"x",
    ):
        with pytest.raises(MeshError) as refused:
            endpoints.find("GET", path)
        assert refused.value.reason is Reason.NOT_FOUND
    with pytest.raises(MethodNotAllowed) as wrong:
        endpoints.find("GET", b"/v1/x/a/cancel")
    assert wrong.value.allowed == ["POST"]


def test_how_much_is_kept_comes_from_the_control_plane():
    """One that does not know of it leaves the default in force; 0 days are 0 days."""

    def bounds(**policy) -> Bounds:
        return to_catalog(lane_pb2.WatchLanesResponse(policy=config_pb2.GatewayPolicy(**policy))).policy.kept_responses

    assert bounds() == Policy().kept_responses == Bounds(30 * 86_400.0, 64 << 20)
    kept = config_pb2.ResponsePolicy(kept_day_count=2, project_byte_count=5)
    assert bounds(responses=kept) == Bounds(2 * 86_400.0, 5)
    assert bounds(responses=config_pb2.ResponsePolicy(project_byte_count=5)) == Bounds(0.0, 5)
