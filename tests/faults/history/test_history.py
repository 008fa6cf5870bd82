"""A recorded history of requests under kills, stops and departures, checked against a model.

Nothing is lost, nothing comes twice, nothing is left behind. The seed is printed, and SERIN_SEED replays its plan.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from faults.history.clients import Clients
from faults.history.harming import Harming
from faults.history.model import unexplained, violations
from faults.history.record import History
from harness.gateway_log import GatewayLog
from harness.metrics import await_metrics
from harness.running_mesh import RunningMesh
from harness.workers import Workers

LEAVING = 0.25


async def check(crowd: RunningMesh, workers: Workers, rng: random.Random, num_harms: int, num_left: int, to: Path):
    """Record a history with so many faults, and hold it against the model."""
    history, log = History(), GatewayLog(crowd)
    clients = Clients(crowd, history, rng, LEAVING)
    await workers.ready()
    right = await clients.undisturbed()
    asking = asyncio.create_task(clients.run())
    await Harming(workers, history).run(rng, num_harms)
    await clients.departures(num_left)
    clients.stop()
    await asking
    for asked in history.requests:
        await log.finished(asked.request_id)
    history.write(to / "history.jsonl", log.lines)
    report(history, log)
    assert not list(violations(history, right, log.lines)), f"the history is in {to}"
    await nothing_left(crowd, await workers.ready())


def report(history: History, log: GatewayLog) -> None:
    """What happened, in a few lines."""
    lost = [lost for asked in history.requests for lost in log.lines[asked.request_id][0]["lost_workers"]]
    endings = Counter("left" if one.has_left else one.seen.error or "ok" for one in history.requests)
    print(f"{len(history.requests)} requests {dict(endings)}, {history.num_faults} faults, losses", end=" ")
    print(
        dict(Counter(one["cause"] for one in lost)), f"of which {unexplained(history, log.lines)} silences unexplained"
    )
    for cause in ("killed", "silent"):
        pauses = sorted(one["pause_s"] for one in lost if one["cause"] == cause and one["pause_s"] is not None)
        if pauses:
            half, last = pauses[len(pauses) // 2], pauses[-1]
            print(f"{cause}: {len(pauses)} resumes, pause p50 {half:.3f} s, max {last:.3f} s")


async def nothing_left(crowd: RunningMesh, endpoints: dict[str, str]) -> None:
    """No request runs anywhere, and no block of any worker is in use."""
    for endpoint in endpoints.values():
        await await_metrics(
            endpoint,
            lambda values: (
                values["vllm:num_requests_running"] == 0
                and values["vllm:num_requests_waiting"] == 0
                and values["vllm:kv_cache_usage_perc"] == 0
            ),
        )


@pytest.mark.long
async def test_a_short_history(crowd, workers: Workers, rng: random.Random, tmp_path: Path):
    """Two harms and some departures, to try the next one with: every answer is right or honestly ended."""
    await check(crowd, workers, rng, num_harms=2, num_left=3, to=tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_three_hundred_faults(crowd, workers: Workers, rng: random.Random, tmp_path: Path):
    """The full measure of the promise."""
    await check(crowd, workers, rng, num_harms=100, num_left=200, to=tmp_path)
