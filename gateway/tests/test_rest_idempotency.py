"""`Idempotency-Key` over REST and gRPC: the official SDKs, clients that leave, limits, and errors."""

import asyncio

import anthropic
import openai
import pytest
from serin_gateway.keys.records import Role
from serin_gateway.limits.limiter import Limits
from serin_gateway.testing import MemoryHouse, saying
from serin_mesh.errors import MeshError, Reason

HI = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"idempotency-key": "order-1"}


async def test_a_repeat_gets_the_same_answer(front):
    """Whole: the same bytes, the same identifier, one order to the workers, and the header that says so."""
    first = await front.http.post("/v1/chat/completions", json=HI, headers=KEY)
    again = await front.http.post("/v1/chat/completions", json=HI, headers=KEY)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert first.headers["serin-lane"] == again.headers["serin-lane"] == "lane-a"
    assert len(front.house.workers.orders) == 1
    await front.house.journal.until_closed(2)
    operations = [(receipt.operation, receipt.usage.completion_tokens) for receipt in front.house.journal.receipts]
    assert operations[0][0] == "chat.completions"
    assert operations[0][1] > 0
    assert operations[1] == ("repeat", 0)


async def test_sdks_stream_repeats(front, sdk):
    """OpenAI's and Anthropic's: each event of a repeat is the first one's."""
    streams = []
    for _ in range(2):
        stream = await front.openai.chat.completions.create(**HI, stream=True, extra_headers=KEY)
        streams.append([chunk.model_dump() async for chunk in stream])
    assert streams[0] == streams[1]
    assert "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in streams[0]) == "hello"
    async with sdk(front) as client:
        texts = []
        for _ in range(2):
            async with client.messages.stream(**HI, max_tokens=9, extra_headers={"idempotency-key": "m"}) as stream:
                texts.append([text async for text in stream.text_stream])
        assert texts[0] == texts[1]
        with pytest.raises(anthropic.ConflictError):
            await client.messages.create(**HI, max_tokens=10, extra_headers={"idempotency-key": "m"})
    assert len(front.house.workers.orders) == 2


async def test_a_repeat_joins_after_the_first_client_left(fronts):
    """The answer goes on without its client; whoever asks again gets all of it, and it was made once."""
    async with fronts(saying("x" * 60)) as front:
        workers = front.house.workers
        workers.hold.clear()
        leaving = asyncio.create_task(front.http.post("/v1/chat/completions", json=HI, headers=KEY))
        await workers.until_running(1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        joining = asyncio.create_task(front.http.post("/v1/chat/completions", json=HI, headers=KEY))
        await asyncio.sleep(0.1)
        assert workers.num_running == 1
        workers.hold.set()
        answer = (await joining).json()
        assert answer["choices"][0]["message"]["content"] == "x" * 60
        await front.house.journal.until_closed(2)
        assert {(receipt.operation, receipt.reason) for receipt in front.house.journal.receipts} == {
            ("chat.completions", "ok"),
            ("repeat", "ok"),
        }
        assert len(workers.orders) == 1


async def test_a_repeat_waits_no_longer_than_it_says(fronts):
    """504 before anything came, an error event inside a stream; the first one gets all of its answer all the same."""
    body, hasty = HI | {"stream": True}, KEY | {"x-request-timeout": "0.05"}

    def script(worker, order):
        for number, event in enumerate(saying("hello")(worker, order)):
            if number == 3:
                front.house.workers.hold.clear()
            yield event

    async with fronts(script) as front:
        workers = front.house.workers
        workers.hold.clear()
        first = asyncio.create_task(front.http.post("/v1/chat/completions", json=body, headers=KEY))
        await workers.until_running(1)
        before = await front.http.post("/v1/chat/completions", json=body, headers=hasty)
        assert (before.status_code, before.json()["error"]["reason"]) == (504, "DEADLINE_EXCEEDED")
        workers.hold.set()
        async with front.http.stream("POST", "/v1/chat/completions", json=body, headers=KEY) as joined:
            async for line in joined.aiter_lines():
                if '"content":"h' in line:
                    break
        inside = await front.http.post("/v1/chat/completions", json=body, headers=hasty)
        assert inside.status_code == 200
        assert '"content":"h' in inside.text
        assert "DEADLINE_EXCEEDED" in inside.text.splitlines()[-2]
        workers.hold.set()
        assert (await first).text.endswith("data: [DONE]\n\n")
        assert (await front.http.post("/v1/chat/completions", json=body, headers=KEY)).content == first.result().content
        assert len(workers.orders) == 1


async def test_another_body_is_refused(front):
    """As the SDK raises it; another endpoint counts as something else too."""
    await front.http.post("/v1/chat/completions", json=HI, headers=KEY)
    with pytest.raises(openai.ConflictError) as refused:
        await front.openai.chat.completions.create(**HI, max_tokens=3, extra_headers=KEY)
    assert refused.value.code == "idempotency_conflict"
    assert refused.value.response.headers["x-should-retry"] == "false"
    response = await front.http.post("/v1/completions", json={"model": "small", "prompt": "hi"}, headers=KEY)
    assert response.status_code == 409
    response = await front.http.post("/v1/chat/completions", json=HI, headers={"idempotency-key": "a b"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "idempotency-key")


@pytest.mark.parametrize(
    ("header", "values"),
    [("serin-lane", ["lane-a", "lane-b"]), ("serin-cascade", ["first", "then"]), ("x-session-id", ["a", "b"])],
)
async def test_what_is_said_beside_the_body_is_part_of_the_question(fronts_on, header, values):
    """A header that changes the answer asks for something else when it comes, goes or changes; others do not."""
    house = MemoryHouse()
    credentials = {"authorization": f"Bearer {await house.key(role=Role.OPERATOR)}"}
    async with fronts_on(house) as front:

        async def status(key: str, value: str, **others: str) -> int:
            headers = credentials | {"idempotency-key": key} | ({header: value} if value else {}) | others
            return (await front.http.post("/v1/chat/completions", json=HI, headers=headers)).status_code

        for first in ("", values[0]):
            assert await status(f"order-{first}", first) == 200
            for other in ("", *values):
                again = await status(f"order-{first}", other, **{"x-request-id": "r-2", "x-request-timeout": "9"})
                assert again == (200 if other == first else 409), (first, other)
        assert len(house.workers.orders) == 2


async def test_what_was_refused_may_be_asked_again(fronts):
    """An error is not kept: neither a mistake, nor a failure before or inside a stream."""
    failing = [True]

    def script(worker, order):
        if failing:
            failing.pop()
            return [*saying("ab", "cd")(worker, order)[:2], MeshError(Reason.NUMERICS_FAILED, "no numbers")]
        return saying("ok")(worker, order)

    async with fronts(script) as front:
        wrong = await front.http.post("/v1/chat/completions", json=HI | {"top_p": 9}, headers=KEY)
        assert wrong.status_code == 400
        broken = await front.http.post("/v1/chat/completions", json=HI | {"stream": True}, headers=KEY)
        assert "NUMERICS_FAILED" in broken.text
        assert "[DONE]" not in broken.text
        again = await front.http.post("/v1/chat/completions", json=HI | {"stream": True}, headers=KEY)
        assert again.text.endswith("data: [DONE]\n\n")
        assert "idempotent-replayed" not in again.headers


async def test_a_repeat_costs_nothing_of_a_limit(fronts_on):
    """Neither a request nor a token; the first answer says where the caller stands."""
    house = MemoryHouse()
    key = await house.key(limits=Limits(requests_per_minute=2))
    headers = KEY | {"authorization": f"Bearer {key}"}
    async with fronts_on(house) as front:
        for number in range(5):
            response = await front.http.post("/v1/chat/completions", json=HI, headers=headers)
            assert response.status_code == 200
            assert response.headers.get("x-ratelimit-remaining-requests") == ("1" if number == 0 else None)


async def test_a_defect_is_told_and_reported_once(fronts, monkeypatch):
    """Not a sentence about our code; the next one is answered."""

    def breaks(*_):
        raise ZeroDivisionError

    async with fronts() as front:
        with monkeypatch.context() as broken:
            broken.setattr("serin_gateway.rest.chat.ChatShape.whole", breaks)
            response = await front.http.post("/v1/chat/completions", json=HI, headers=KEY)
            assert response.status_code == 500
            assert response.json()["error"]["reason"] == "INTERNAL"
        assert (await front.http.post("/v1/chat/completions", json=HI, headers=KEY)).status_code == 200


async def test_without_the_store_it_is_503(front):
    """Retryable, and nothing was made."""
    front.house.answers.down = True
    response = await front.http.post("/v1/chat/completions", json=HI, headers=KEY)
    assert (response.status_code, response.headers["x-should-retry"]) == (503, "true")
    assert not front.house.workers.orders
