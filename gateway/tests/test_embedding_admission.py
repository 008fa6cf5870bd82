"""Embeddings under everything that holds for requests: keys, four scopes of limits, the ledger, lines, repeats."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.embedding_ask import PART_INPUTS, EmbeddingAsk, part_inputs
from serin_gateway.journal import LogJournal
from serin_gateway.keys.records import Ability
from serin_gateway.keys.tenants import Organization, Project
from serin_gateway.ledger.price import Price
from serin_gateway.limits.limiter import Limits
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import ByteTokenizer, MemoryHouse, small_catalog, small_lane
from serin_mesh.errors import MeshError, Reason, from_rpc_error
from serin_mesh.testing import running

PRICE = Price(input=1_000_000, cached_input=0, output=9_000_000)
"""A thousand nano-units for a token of input."""
KEY = {"idempotency-key": "once"}


def vectors_catalog(*lanes, **model):
    """One model of vectors, at a price."""
    return small_catalog(*(lanes or [vectors_lane()]), **model)


def vectors_lane(lane: str = "lane-a", **fields):
    """A lane of it."""
    return small_lane(lane, **{"num_dimensions": 4, "context_length": 50, "price": PRICE, "version": "v1"} | fields)


@asynccontextmanager
async def opened(fronts_on, catalog=None, **parts):
    """A door on a house with the model."""
    house = MemoryHouse(**parts)
    house.catalog.publish(catalog or vectors_catalog())
    async with fronts_on(house) as front:
        yield front


async def embed(front, given, key: str = "", headers=(), **fields):
    """Ask over REST."""
    sent = dict(headers) | ({"authorization": f"Bearer {key}"} if key else {})
    return await front.http.post("/v1/embeddings", json={"model": "small", "input": given, **fields}, headers=sent)


def refused(answer) -> tuple[int, str]:
    """How it was."""
    return answer.status_code, answer.json()["error"].get("reason", "")


async def test_keys_decide(fronts_on):
    """None, one made for something else, one for other models; none of them reaches a worker."""
    async with opened(fronts_on) as front:
        for_models = await front.house.key(abilities=(Ability.MODELS,))
        for_others = await front.house.key(models=("other",))
        assert refused(await embed(front, "a", "nonsense")) == (401, "KEY_INVALID")
        assert refused(await embed(front, "a", for_models)) == (403, "ROLE_INSUFFICIENT")
        assert (await embed(front, "a", for_others)).status_code == 404
        assert front.house.embedders.calls == []
        assert list(front.house.limiter.lines) == []


@pytest.mark.parametrize(
    ("scope", "limits", "what"),
    [
        ("key", Limits(requests_per_minute=2), "requests per minute"),
        ("project", Limits(tokens_per_minute=10), "tokens per minute"),
        ("organization", Limits(tokens_per_day=10), "tokens per day"),
        ("model", Limits(money_per_month=10), "money per month"),  # micro-units: ten tokens
        ("project", Limits(concurrent_requests=1), "requests at the same time"),
    ],
)
async def test_limits_of_every_scope_and_kind(fronts_on, scope, limits, what):
    """What the bytes bound is held while vectors are computed, and what was used counts then, for all keys together."""
    catalog = vectors_catalog(limits=limits) if scope == "model" else None
    async with opened(fronts_on, catalog) as front:
        house = front.house
        none = Limits()
        await house.tenants.put_organization(Organization("acme", limits if scope == "organization" else none))
        await house.tenants.put_project(Project("web", "acme", limits if scope == "project" else none))
        await house.copy.refresh()
        owner = {"tenant": "web", "organization": "acme"}
        first = await house.key(limits=limits if scope == "key" else none, **owner)
        second = first if scope == "key" else await house.key(limits=none, **owner)
        if limits.concurrent_requests:
            house.embedders.hold.clear()
            held = asyncio.create_task(embed(front, "abc", first))
            await until(lambda: house.embedders.calls)
        else:
            assert [(await embed(front, given, first)).status_code for given in ("abc", "defg")] == [200, 200]
        answer = await embed(front, "hijk", second)
        assert refused(answer) == (429, "RATE_LIMITED")
        assert f"the {scope}'s limit" in answer.json()["error"]["message"]
        assert what in answer.json()["error"]["message"]
        house.embedders.hold.set()
        if limits.concurrent_requests:
            assert (await held).status_code == 200
            assert (await embed(front, "hijk", second)).status_code == 200
        num_paid = 7
        assert sum(line.prompt_tokens for line in house.limiter.lines) == num_paid


async def test_a_text_of_more_tokens_than_bytes_is_reserved_all_the_same(fronts_on):
    """Special tokens, and characters that a tokenizer writes out: the limit holds for what was counted."""

    class Wordy(ByteTokenizer):
        async def encode_each(self, scope, texts):
            return [[1, *(2 * list(text.encode())), 1] for text in texts]

    async with opened(fronts_on, tokenizer=Wordy()) as front:
        key = await front.house.key(limits=Limits(tokens_per_minute=20))
        answer = await embed(front, "a" * 10, key)  # 11 by its bytes, 22 in truth
        assert refused(answer) == (429, "RATE_LIMITED")
        assert "22 tokens" in answer.json()["error"]["message"]
        assert front.house.embedders.calls == []
        answer = await embed(front, "a" * 9, key)
        assert (answer.status_code, answer.json()["usage"]["total_tokens"]) == (200, 20)
        assert refused(await embed(front, "a", key)) == (429, "RATE_LIMITED")


async def test_a_line_in_the_ledger_for_each_attempt_and_nothing_twice(fronts_on):
    """What was computed is paid once, by the price of its lane; what failed or was left costs nothing."""
    lanes = [vectors_lane(lane, weight=50) for lane in ("lane-a", "lane-b")]
    async with opened(fronts_on, vectors_catalog(*lanes)) as front:
        house = front.house
        house.embedders.failures = [None, MeshError(Reason.VOCABULARY_MISMATCH, "another one")]
        answer = await embed(front, [[7]] * 9, dimensions=2)  # places of a worker: 8, so two parts
        assert answer.status_code == 200
        lines = [json.loads(line.text) for line in house.limiter.lines]
        assert [(line["prompt_tokens"], line["completion_tokens"], line["nano"]) for line in lines] == [
            (0, 0, 0),
            (9, 0, 9000),
        ]
        assert lines[1]["lane"] == answer.headers["serin-lane"] != lines[0]["lane"]
        assert (lines[1]["model"], lines[1]["version"], lines[1]["counted_by"]) == ("small", "v1", "gateway")
        house.embedders.failures = [MeshError(Reason.INTERNAL, "broken")]
        assert (await embed(front, "abc")).status_code == 500
        house.embedders.hold.clear()
        leaving = asyncio.create_task(embed(front, "abc"))
        num_calls = len(house.embedders.calls)
        await until(lambda: len(house.embedders.calls) > num_calls)
        leaving.cancel()
        await house.journal.until_closed(3)
        lines = [json.loads(line.text) for line in house.limiter.lines]
        assert sum(line["nano"] for line in lines) == 9000
        assert max(Counter(line["account"] for line in lines).values()) == 1
        assert house.journal.receipts[-1].reason == "CANCELLED"


async def test_it_waits_its_turn_or_is_refused(fronts_on):
    """The same line as other requests: until there is a place, until its time is over, or not at all."""
    async with opened(fronts_on) as front:
        house = front.house
        house.embedders.hold.clear()
        at_work = asyncio.create_task(embed(front, "a"))
        await until(lambda: house.embedders.calls)
        turnstile = house.collaborators.turnstiles.by_model["small"]
        turnstile.limit.value = 1
        waiting = asyncio.create_task(embed(front, "b"))
        await until(lambda: len(turnstile.line) == 1)
        late = await embed(front, "c", headers={"x-request-timeout": "0.1"})
        assert refused(late) == (504, "DEADLINE_EXCEEDED")
        turnstile.line._max_tickets = 1
        full = await embed(front, "d")
        assert refused(full) == (503, "QUEUE_FULL")
        assert int(full.headers["retry-after"]) >= 1
        assert len(house.embedders.calls) == 1
        house.embedders.hold.set()
        assert (await at_work).status_code == (await waiting).status_code == 200
        late = await embed(front, "c", headers={"x-request-timeout": "0.1"})
        assert late.status_code == 200
        assert (turnstile.num_running, len(turnstile.line)) == (0, 0)


async def test_a_deadline_ends_what_runs(fronts_on):
    """`x-request-timeout` holds for computing, too; what was reserved is free again, and nothing is paid."""
    async with opened(fronts_on) as front:
        front.house.embedders.hold.clear()
        late = await embed(front, "a", headers={"x-request-timeout": "0.2"})
        assert refused(late) == (504, "DEADLINE_EXCEEDED")
        assert front.house.collaborators.turnstiles.by_model["small"].num_running == 0
        assert sum(line.nano for line in front.house.limiter.lines) == 0


async def test_a_long_list_delays_others_by_one_of_its_parts(fronts_on):
    """Each part waits its turn: whoever came meanwhile goes between two of them; an answer is still one answer."""
    async with opened(fronts_on) as front:
        house = front.house
        other = await house.key(tenant="other")
        house.embedders.hold.clear()
        long = asyncio.create_task(embed(front, [[7]] * 20))  # 8 + 8 + 4, by the worker's places
        await until(lambda: house.embedders.calls)
        turnstile = house.collaborators.turnstiles.by_model["small"]
        assert turnstile.num_running == 8
        turnstile.limit.value, turnstile.limit.num_spare = 8, 0
        short = asyncio.create_task(embed(front, [[9]], other))
        await until(lambda: len(turnstile.line) == 1)
        house.embedders.hold.set()
        assert (await short).status_code == 200
        answer = (await long).json()
        assert len(answer["data"]) == 20
        assert [ids[0][0] for _, _, ids in house.embedders.calls] == [7, 9, 7, 7]
        assert turnstile.num_running == 0


async def test_a_long_list_that_cannot_be_ready_in_time_is_refused(fronts_on):
    """By the turns that it needs; the lane is not to blame for it when that shows only in the middle."""
    async with opened(fronts_on) as front:
        house = front.house
        house.embedders.hold.clear()
        begun = asyncio.create_task(embed(front, [[7]] * 24))
        await until(lambda: house.embedders.calls)
        turnstile = house.collaborators.turnstiles.by_model["small"]
        turnstile.limit.value = 8
        turnstile._answers.note(10.0)
        patient = {"x-request-timeout": "70"}  # a turn is 10 s of waiting and 10 of being computed
        answer = await embed(front, [[7]] * 40, headers=patient)
        assert refused(answer) == (503, "QUEUE_FULL")
        assert "5 times over" in answer.json()["error"]["message"]
        between = asyncio.create_task(embed(front, [[9]] * 24, headers=patient))
        await until(lambda: len(turnstile.line) == 1)

        class Slowing(list):
            """Answers take longer from the second list's first part on."""

            def append(self, call) -> None:
                super().append(call)
                if call[2][0][0] == 9:
                    turnstile._answers.mean = 100.0

        house.embedders.calls = Slowing(house.embedders.calls)
        house.embedders.hold.set()
        answers = await asyncio.gather(begun, between)
        assert sorted(refused(answer) for answer in answers if answer.status_code != 200)[0] == (503, "QUEUE_FULL")
        cut = [one for receipt in house.journal.receipts for one in receipt.attempts if one.reason != "ok"]
        assert cut
        assert {one.reason for one in cut} == {"CANCELLED"}
        assert turnstile.num_running == 0


@pytest.mark.parametrize(
    ("num_inputs", "places", "wanted"),
    [(1, 0, (1, 1)), (300, 0, (256, 2)), (300, 100, (100, 3)), (2048, 4096, (256, 8)), (5, 8, (5, 1))],
)
def test_turns(num_inputs, places, wanted):
    """As many inputs at once as a part has, as often as there are parts."""
    turns = EmbeddingAsk("small", ["a"] * num_inputs).turns(places)
    assert (turns.num_places, turns.count) == wanted
    assert turns.num_places <= part_inputs(places) <= PART_INPUTS


async def test_repeats_over_rest_are_answered_once(fronts_on):
    """The same bytes, nothing computed or paid twice, also when the first client has left; another ask is refused."""
    async with opened(fronts_on) as front:
        house = front.house
        house.embedders.hold.clear()
        leaving = asyncio.create_task(embed(front, ["a", "b"], headers=KEY))
        await until(lambda: house.embedders.calls)
        leaving.cancel()
        joining = asyncio.create_task(embed(front, ["a", "b"], headers=KEY))
        house.embedders.hold.set()
        first, again = await joining, await embed(front, ["a", "b"], headers=KEY)
        assert first.status_code == again.status_code == 200
        assert first.content == again.content
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["serin-lane"] == "lane-a"
        assert len(first.json()["data"]) == 2
        assert refused(await embed(front, ["a", "c"], headers=KEY)) == (409, "IDEMPOTENCY_CONFLICT")
        await house.journal.until_closed(4)
        assert len(house.embedders.calls) == 1
        assert [line.prompt_tokens for line in house.limiter.lines] == [2]
        operations = Counter(receipt.operation for receipt in house.journal.receipts)
        assert operations["repeat"] == 2


async def test_grpc_is_held_to_the_same(fronts_on):
    """Limits, repeats with their sign in the trailer, a deadline in line."""
    async with opened(fronts_on) as front:
        house = front.house
        key = await house.key(limits=Limits(tokens_per_minute=12))
        service = InferenceService(house.collaborators)
        async with (
            running(
                lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
            ) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            stub = inference_pb2_grpc.InferenceServiceStub(channel)

            def call(*inputs: str, timeout_s: float = 9.0, **metadata: str):
                sent = [("authorization", f"Bearer {key}"), *((n.replace("_", "-"), v) for n, v in metadata.items())]
                request = inference_pb2.EmbedRequest(model="small", inputs=inputs)
                return stub.Embed(request, timeout=timeout_s, metadata=sent)

            async def reason(asked) -> Reason:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await asked
                return from_rpc_error(failed.value).reason

            calls = [call("abc", idempotency_key="k"), call("abc", idempotency_key="k")]
            first, again = [await one for one in calls]
            assert first == again
            assert (first.lane, first.usage.prompt_token_count) == ("lane-a", 3)
            trailers = [dict(await one.trailing_metadata()) for one in calls]
            assert [trailer["serin-lane"] for trailer in trailers] == ["lane-a", "lane-a"]
            assert sorted(trailer.get("idempotent-replayed", "") for trailer in trailers) == ["", "true"]
            assert await reason(call("abd", idempotency_key="k")) is Reason.IDEMPOTENCY_CONFLICT
            house.embedders.hold.clear()
            held = call("abc")
            await until(lambda: len(house.embedders.calls) == 2)
            turnstile = house.collaborators.turnstiles.by_model["small"]
            turnstile.limit.value = 1
            assert await reason(call("a", timeout_s=0.3)) is Reason.DEADLINE_EXCEEDED
            await until(lambda: not len(turnstile.line))
            house.embedders.hold.set()
            assert len((await held).embeddings) == 1
            assert await reason(call("abcdefg")) is Reason.RATE_LIMITED, "of 12 six are left"
            await house.journal.until_closed(6)
            assert [line.prompt_tokens for line in house.limiter.lines if line.prompt_tokens] == [3, 3]
            assert turnstile.num_running == 0


async def test_it_counts_in_the_metrics(fronts_on):
    """By model, operation and reason, and its tokens as those of prompts; no first token is timed."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    async with opened(fronts_on, journal=LogJournal(metrics)) as front:
        assert (await embed(front, "abc")).status_code == 200
        assert (await embed(front, "abc", dimensions=9)).status_code == 400
        await until(lambda: registry.get_sample_value("serin_gateway_requests_running", {"door": "rest"}) == 0)
    text = generate_latest(registry).decode()
    for line in (
        'serin_gateway_requests_total{door="rest",model="small",operation="embeddings",reason="ok"} 1.0',
        'serin_gateway_requests_total{door="rest",model="small",operation="embeddings",reason="PARAMETER_INVALID"} 1.0',
        'serin_gateway_tokens_total{kind="prompt",model="small"} 3.0',
        'serin_gateway_tokens_total{kind="completion",model="small"} 0.0',
    ):
        assert line in text
    assert "gen_ai_server_time_to_first_token_seconds_count" not in text


async def until(holds) -> None:
    """Wait until something holds that nobody tells of."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - lines and calls have no event of their own
            await asyncio.sleep(0.005)
