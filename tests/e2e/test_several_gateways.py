"""Three gateway processes beside one state store: what one decides, the others keep to."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.eventually import eventually
from harness.further_gateways import further_gateway, serves
from harness.keys import mint, revoke
from harness.metrics import read_metrics
from harness.running_mesh import RunningMesh
from serin_gateway.keys import Role
from serin_gateway.limits.limiter import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUM_CALLS = 200
MAX_TOKENS = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(
    mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[httpx.AsyncClient, list[str]]]:
    """A client without a key of its own, and the three that it may ask."""
    folder: Path = tmp_path_factory.mktemp("gateways")
    async with AsyncExitStack() as stack:
        further = [stack.enter_context(further_gateway(mesh, f"further-{n}", folder)) for n in range(3)]
        bases = [url for url, _ in further]
        client = await stack.enter_async_context(plain_http(timeout=60))
        client.headers["authorization"] = f"Bearer {mesh.key}"
        for base in bases:
            await eventually(lambda base=base: serves(client, base, TINY), bool, f"{base} serves", timeout_s=60)
        del client.headers["authorization"]
        yield client, bases


async def ask(client: httpx.AsyncClient, base: str, key: str) -> httpx.Response:
    """A short completion."""
    return await client.post(
        f"{base}/v1/chat/completions",
        json=greedy("Hi", max_tokens=MAX_TOKENS),
        headers={"authorization": f"Bearer {key}"},
    )


async def test_a_revocation_reaches_all_of_them(mesh: RunningMesh, gateways: tuple[httpx.AsyncClient, list[str]]):
    """A key that each has just let in is refused by each; how soon is printed."""
    client, bases = gateways
    key, record = await mint(mesh)
    assert [(await ask(client, base, key)).status_code for base in bases] == [200] * 3
    await revoke(mesh, record)
    revoked_at = time.monotonic()

    async def statuses() -> set[int]:
        return {(await client.get(f"{base}/v1/models", headers={"authorization": f"Bearer {key}"})).status_code
                for base in bases}  # fmt: skip

    await eventually(statuses, lambda seen: seen == {401}, "refused by all three")
    print(f"refused by all three {time.monotonic() - revoked_at:.2f} s later")


async def decided_alone(bases: list[str], viewer: str) -> float:
    """Requests that gateways decided about by their own share, since state Redis had not answered in time."""
    headers = {"authorization": f"Bearer {viewer}"}
    found = [await read_metrics(base.removeprefix("http://"), headers) for base in bases]
    return sum(metrics.get("serin_gateway_limits_alone_total", 0.0) for metrics in found)


@pytest.mark.parametrize("num_that_fit", [0, 1, 37])
async def test_calls_at_once_cannot_overshoot_a_budget(
    mesh: RunningMesh, gateways: tuple[httpx.AsyncClient, list[str]], num_that_fit: int
):
    """Two hundred over all three: so many are answered as fit into the day's tokens, and not a token more is used."""
    client, bases = gateways
    viewer, _ = await mint(mesh, role=Role.VIEWER)
    one = (await ask(client, bases[0], mesh.key)).json()["usage"]["total_tokens"]
    limit = num_that_fit * one + one - 1
    key, _ = await mint(mesh, limits=Limits(tokens_per_day=limit))
    answers = await asyncio.gather(*(ask(client, bases[number % len(bases)], key) for number in range(NUM_CALLS)))
    assert await decided_alone(bases, viewer) == 0, "state Redis was away for longer than anybody waits here"
    used = sum(answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
    assert used <= limit
    assert set(Counter(answer.status_code for answer in answers)) <= {200, 429}
    while True:  # what was reserved and not used is back: whatever fits is answered
        answer = await ask(client, bases[0], key)
        if answer.status_code != 200:
            break
        used += answer.json()["usage"]["total_tokens"]
    assert used <= limit
    error = answer.json()["error"]
    assert error["reason"] == "RATE_LIMITED"
    wanted = re.search(r"(?:may use up to|needs at least) (\d+)", error["message"])
    assert wanted is not None, error
    assert int(wanted[1]) > limit - used
