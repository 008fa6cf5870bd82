"""The ledger while a gateway is killed: every token that the worker sent is in it, none of them twice.

Three real gateways, a real state store, a worker that counts what it sends. What a killed gateway leaves open is
settled by the others from the worker's own count (docs/decisions/0006-ledger.md).
"""

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from harness.asking import COUNTED
from harness.clients import plain_http
from harness.eventually import eventually
from harness.further_gateways import further_gateway, process, serves
from harness.running_mesh import RunningMesh
from redis.asyncio import Redis

AT_ONCE = 24
WORKER = Path(__file__).parents[1] / "harness" / "counting_worker.py"
EXPIRY, LEASES = "serin:{default}:limit-expiry", "serin:{default}:limit-leases"


def worker(mesh: RunningMesh, model: Path, tally: Path) -> list[str]:
    """The command line of the worker that counts."""
    return [
        sys.executable, str(WORKER), "--model", COUNTED, "--model-path", str(model), "--tally", str(tally),
        "--control", mesh.control, "--instance", "counting", "--mesh-secret-file", str(mesh.state / "mesh.secret"),
    ]  # fmt: skip


async def ask(client: httpx.AsyncClient, base: str, rng: random.Random, *, stream: bool) -> bool:
    """One chat; whether its answer came to its end."""
    body = {
        "model": COUNTED,
        "messages": [{"role": "user", "content": "x" * rng.randrange(1, 40)}],
        "max_tokens": rng.randrange(1, 60),
        "stream": stream,
    }
    try:
        response = await client.post(f"{base}/v1/chat/completions", json=body)
    except httpx.TransportError:
        return False
    assert response.status_code == 200, response.text
    return b"[DONE]" in response.content if stream else True


@pytest.mark.parametrize(
    "num_requests", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
async def test_a_killed_gateway_leaves_no_gap_and_no_double(
    mesh: RunningMesh, tiny_model: Path, tmp_path: Path, rng: random.Random, num_requests: int
):
    """SIGKILL in the middle: of each attempt the ledger says what the worker sent, once; so do the sums by day."""
    tally_file = tmp_path / "tally.json"
    headers = {"authorization": f"Bearer {mesh.key}"}
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(mesh.record["state_redis"]))
        for kind in ("ledger", "usage"):
            await redis.delete("none", *await redis.keys(f"serin:{{default}}:{kind}:*"))
        counting = stack.enter_context(process(worker(mesh, tiny_model, tally_file), tmp_path / "worker.log"))
        further = [stack.enter_context(further_gateway(mesh, f"gw-{n}", tmp_path)) for n in range(2)]
        bases = [mesh.rest, *(url for url, _ in further)]
        victim = further[1][1]
        client = await stack.enter_async_context(plain_http(timeout=60, headers=headers))
        for base in bases:
            await eventually(lambda base=base: serves(client, base, COUNTED), bool, f"{base} serves", timeout_s=60)

        ended: list[bool] = []
        kill_at = num_requests // 2 + rng.randrange(num_requests // 10)
        numbers = iter(range(num_requests))

        async def killed_in_the_middle() -> None:
            """The third gateway dies while it answers; the worker has sent something of that answer."""
            body = {
                "model": COUNTED,
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 3000,
                "stream": True,
            }
            try:
                async with client.stream("POST", f"{bases[2]}/v1/chat/completions", json=body) as answer:
                    async for chunk in answer.aiter_text():
                        if '"content":"' in chunk:
                            victim.send_signal(signal.SIGKILL)
            except httpx.TransportError:
                ended.append(False)

        async def go_on() -> None:
            for number in numbers:
                if number == kill_at:
                    await killed_in_the_middle()
                alive = bases if number < kill_at else bases[:2]
                ended.append(await ask(client, alive[number % len(alive)], rng, stream=number % 3 != 0))

        await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
        assert victim.wait(10) == -signal.SIGKILL
        dead = await redis.hkeys(LEASES)
        if dead:
            await redis.zadd(EXPIRY, dict.fromkeys(dead, 1))  # as if LEASE_S had passed
        await eventually(lambda: redis.hlen(LEASES), lambda left: left == 0, "the dead one is settled", timeout_s=60)
        counting.terminate()
        await asyncio.to_thread(counting.wait, 30)
        tally = {account: sent for account, sent in json.loads(tally_file.read_text()).items() if sent[1]}
        lines = [
            json.loads(fields[b"line"])
            for stream in await redis.keys("serin:{default}:ledger:*")
            for _, fields in await redis.xrange(stream)
        ]
        sums: Counter[str] = Counter()
        for name in await redis.keys("serin:{default}:usage:*"):
            for key, value in (await redis.hgetall(name)).items():
                sums[key.decode().rsplit("\x1f", 1)[1]] += int(value)

    assert max(Counter(line["account"] for line in lines).values()) == 1
    billed = {line["account"]: [line["prompt_tokens"], line["completion_tokens"]] for line in lines}
    assert {account: sent for account, sent in billed.items() if sent[1]} == tally
    assert len(tally) >= sum(ended)
    assert any(line["counted_by"] == "worker" for line in lines)
    assert sums["completion"] == sum(sent[1] for sent in tally.values())
    assert sums["prompt"] == sum(line["prompt_tokens"] for line in lines)
    assert sums["nano"] == sum(line["nano"] for line in lines)
    for line in lines:
        fresh = line["prompt_tokens"] - line["cached_tokens"]
        pico = 150_000 * fresh + 75_000 * line["cached_tokens"] + 600_000 * line["completion_tokens"]
        assert line["nano"] == -(-pico // 1000)


@pytest.mark.long
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_was_begun_anew_is_billed_once(
    mesh: RunningMesh, tiny_model: Path, tmp_path: Path, stream: bool
):
    """SIGKILL in the middle of an answer under a key: the repeat is whole and new, the dead attempt costs nothing."""
    headers = {"authorization": f"Bearer {mesh.key}", "idempotency-key": f"order-{stream}"}
    body = {"model": COUNTED, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3000, "stream": stream}
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(mesh.record["state_redis"]))
        await redis.delete("none", *await redis.keys("serin:{default}:ledger:*"))
        tally = tmp_path / "tally.json"
        stack.enter_context(process(worker(mesh, tiny_model, tally), tmp_path / "worker.log"))
        url, victim = stack.enter_context(further_gateway(mesh, f"victim-{stream}", tmp_path))
        client = await stack.enter_async_context(plain_http(timeout=60, headers=headers))
        for base in (mesh.rest, url):
            await eventually(lambda base=base: serves(client, base, COUNTED), bool, f"{base} serves", timeout_s=60)

        first = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
        await eventually(lambda: redis.hlen(LEASES), bool, "the lease is written ahead", timeout_s=30)
        if stream:
            (maker,) = await redis.keys("serin:{default}:answer:*:maker")
            frames = maker.removesuffix(b":maker") + b":frames"
            await eventually(lambda: redis.llen(frames), lambda count: count > 1, "some of it is posted", timeout_s=30)
        else:
            await asyncio.sleep(0.4)  # of 1.5 s that the worker needs: nothing says from outside that it has begun
        victim.send_signal(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await first
        (dead,) = await redis.hkeys(LEASES)
        again = await client.post(f"{mesh.rest}/v1/chat/completions", json=body)
        assert again.status_code == 200
        assert "idempotent-replayed" not in again.headers
        if stream:
            assert again.text.count('"finish_reason":"length"') == 1
            assert again.text.endswith("data: [DONE]\n\n")
            assert len({line[:60] for line in again.text.splitlines() if line.startswith("data: {")}) == 1
        else:
            assert again.json()["usage"]["completion_tokens"] == 3000
        await redis.zadd(EXPIRY, {dead: 1}, xx=True)  # as if LEASE_S had passed
        await eventually(lambda: redis.hlen(LEASES), lambda left: left == 0, "the dead one is settled", timeout_s=60)
        lines = [
            json.loads(fields[b"line"])
            for name in await redis.keys("serin:{default}:ledger:*")
            for _, fields in await redis.xrange(name)
        ]
    superseded = [line for line in lines if line["account"].startswith(dead.decode())]
    assert [(line["superseded"], line["nano"], line["counted_by"]) for line in superseded] == [(True, 0, "worker")]
    assert 0 < superseded[0]["completion_tokens"] < 3000
    assert [line["completion_tokens"] for line in lines if line["nano"]] == [3000]
