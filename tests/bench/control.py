"""How fast the control plane reaches everybody, and whether anybody notices its restart: `make bench-control`.

    python tests/bench/control.py [--streams 200] [--callers 8] [--rounds 20] [--out FILE]

A real control plane with a real Valkey; four echo services in a process of their own announce two versions of a
model. Raw ADS streams, which take and acknowledge everything as clients do, and callers in processes of their own,
which call `xds:///worker.small` without a pause, hear of weights that move from one version to the other and back.
Then the control plane is killed (SIGKILL) under the callers' load and comes back.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_control_plane import ControlProcess, declaration
from control_callers import Callers
from control_streams import RawStreams
from harness.eventually import eventually
from harness.leash import leashed
from harness.valkey import KEEPS, Valkey
from report import keep, show
from serin.control.v1 import config_pb2, config_pb2_grpc, lane_pb2, rollout_pb2, rollout_pb2_grpc
from serin_mesh.errors import MeshError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_OUT = ROOT / "build" / "bench" / "control.json"
GOAL_S = 1.0
FAILOVERS = 5
FAILOVER_GOAL_S = 5.0
SETTLE_S = 0.5
"""Between changes: what callers still had under way is over."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print, keep; returns 0 where the goals are met."""
    parser = argparse.ArgumentParser(description="Measure how changes spread and what a restart costs.")
    parser.add_argument("--streams", type=int, default=200, help="raw ADS streams (default: 200)")
    parser.add_argument("--callers", type=int, default=8, help="caller processes (default: 8)")
    parser.add_argument("--rate", type=float, default=50, help="calls a second of each (default: 50)")
    parser.add_argument("--rounds", type=int, default=20, help="weight changes, an even number (default: 20)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    arguments = parser.parse_args(argv)
    if arguments.rounds % 2:
        parser.error(f"--rounds: {arguments.rounds}: accepted: an even number")
    with tempfile.TemporaryDirectory(prefix="serin-bench-") as folder:
        results = asyncio.run(_measure(arguments, Path(folder)))
    _print(arguments, results)
    keep(arguments.out, results)
    return 0 if results["met"] else 1


async def _measure(arguments: argparse.Namespace, folder: Path) -> dict:
    valkey = Valkey(folder / "valkey", KEEPS)
    await asyncio.to_thread(valkey.start)
    control = ControlProcess(folder, valkey.url)
    try:
        await control.start()
        async with (
            _services(control.address, folder),
            RawStreams(control.address, arguments.streams) as streams,
            Callers(control.address, arguments.callers, arguments.rate) as callers,
        ):
            await eventually(control.lanes, _is_whole, "both lanes", timeout_s=60)
            await eventually(callers.seen, lambda names: names == {"w1"}, "callers at the first version", timeout_s=60)
            await streams.settled()
            spread = await _spread(arguments.rounds, control, streams, callers)
            rolled_back = await _rollbacks(arguments.rounds, control, callers)
            restart = await _restart(control, callers)
            after = await _spread(2, control, streams, callers)
            failovers = await _failovers(FAILOVERS, control, ControlProcess(folder, valkey.url, "second"))
    finally:
        await control.kill()
        await asyncio.to_thread(valkey.stop)
    spread["to a caller's first answer after a rollback"] = rolled_back
    p99 = {name: percentile(seconds, 99) for name, seconds in spread.items()}
    met = all(seconds <= GOAL_S for seconds in p99.values()) and restart["failed"] == 0
    met = met and max(failovers) <= FAILOVER_GOAL_S
    return {
        "streams": arguments.streams,
        "callers": arguments.callers,
        "rounds": arguments.rounds,
        "seconds": {name: _summary(seconds) for name, seconds in spread.items()},
        "seconds_after_restart": {name: _summary(seconds) for name, seconds in after.items()},
        "restart": restart,
        "failover_s": failovers,
        "goal_s": GOAL_S,
        "met": met,
    }


async def _spread(
    rounds: int, control: ControlProcess, streams: RawStreams, callers: Callers
) -> dict[str, list[float]]:
    """Seconds from the moment that a change is asked for, of each stream and each caller in each round."""
    found: dict[str, list[float]] = {"to a raw ADS stream": [], "to a caller's first changed pick": []}
    async with control.channel() as channel:
        configure = config_pb2_grpc.ConfigServiceStub(channel)
        for number in range(rounds):
            heavy = 1 if number % 2 else 2
            heard, picked = streams.next_change(), callers.first_answers(f"w{heavy}")
            begun = time.monotonic()
            await configure.ApplyConfig(config_pb2.ApplyConfigRequest(yaml=declaration(heavy)), timeout=10)
            found["to a raw ADS stream"] += [at - begun for at in await heard]
            found["to a caller's first changed pick"] += [at - begun for at in await picked]
            await asyncio.sleep(SETTLE_S)
    return found


async def _rollbacks(rounds: int, control: ControlProcess, callers: Callers) -> list[float]:
    """Seconds from a rollback asked for to each caller's first answer by the other version, in each round."""
    found: list[float] = []
    async with control.channel() as channel:
        rollouts = rollout_pb2_grpc.RolloutServiceStub(channel)
        for number in range(rounds):
            to = 1 if number % 2 else 2
            answered = callers.first_answers(f"w{to}")
            begun = time.monotonic()
            request = rollout_pb2.RollbackRequest(model="small", to_version=f"v{to}", actor="bench")
            await rollouts.Rollback(request, timeout=10)
            found += [at - begun for at in await answered]
            await asyncio.sleep(SETTLE_S)
    return found


async def _failovers(rounds: int, leading: ControlProcess, other: ControlProcess) -> list[float]:
    """Seconds from the death of the control plane that leads until the other one carries out an act."""
    found: list[float] = []
    await other.start()
    try:
        for number in range(rounds):
            await asyncio.sleep(SETTLE_S)
            begun = time.monotonic()
            await leading.kill()
            await eventually(lambda o=other, n=number: _froze(o, n % 2 == 0), bool, f"{other.name} leads")
            found.append(time.monotonic() - begun)
            await leading.start()
            leading, other = other, leading
    finally:
        await leading.kill()
        await other.kill()
    return found


async def _froze(control: ControlProcess, frozen: bool) -> bool:
    """Whether it carries out an act: only the one that leads does."""
    async with control.channel() as channel:
        try:
            request = rollout_pb2.FreezeRequest(frozen=frozen, actor="bench")
            await rollout_pb2_grpc.RolloutServiceStub(channel).Freeze(request, timeout=2)
        except MeshError:
            return False
    return True


async def _restart(control: ControlProcess, callers: Callers) -> dict:
    """Calls and failures while the control plane is killed, away for a while, back, and used again."""
    before = await callers.totals()
    begun = time.monotonic()
    await control.kill()
    await asyncio.sleep(3.0)
    starting = time.monotonic()
    await control.start()
    back = time.monotonic()
    await asyncio.sleep(5.0)
    after = await callers.totals()
    return {
        "calls": after["calls"] - before["calls"],
        "failed": after["failed"] - before["failed"],
        "away_s": back - begun,
        "start_s": back - starting,
        "longest_call_s": after["longest_s"],
        "errors": after["errors"],
    }


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in sorted(values)) + " s"


def _summary(seconds: list[float]) -> dict[str, float]:
    return {
        "samples": len(seconds),
        "p50": percentile(seconds, 50),
        "p90": percentile(seconds, 90),
        "p99": percentile(seconds, 99),
        "max": max(seconds),
    }


def _print(arguments: argparse.Namespace, results: dict) -> None:
    rows = [
        (
            f"{name}{suffix}",
            numbers["samples"],
            *(f"{numbers[key] * 1000:,.0f}" for key in ("p50", "p90", "p99", "max")),
        )
        for suffix, part in (("", "seconds"), (", after the restart", "seconds_after_restart"))
        for name, numbers in results[part].items()
    ]
    restart = results["restart"]
    show(
        f"A weight change reaches {arguments.streams} ADS streams and {arguments.callers} caller processes, ms",
        ("from the change asked for", "samples", "p50", "p90", "p99", "max"),
        rows,
        [
            f"goal: p99 within {GOAL_S * 1000:,.0f} ms",
            f"SIGKILL of the control plane, {restart['away_s']:.1f} s until it answers again: "
            f"{restart['calls']} calls, {restart['failed']} failed, the longest took {restart['longest_call_s']:.3f} s",
            f"SIGKILL of the one that leads, until the other one acts: {_seconds(results['failover_s'])} "
            f"(goal: {FAILOVER_GOAL_S:.0f} s)",
            "goals met" if results["met"] else "GOALS NOT MET",
        ],
    )


@contextlib.asynccontextmanager
async def _services(control: str, folder: Path):
    with (folder / "services.log").open("wb") as log:
        command = leashed([sys.executable, str(Path(__file__).with_name("control_services.py")), control])
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def _is_whole(lanes: lane_pb2.WatchLanesResponse | None) -> bool:
    return lanes is not None and any(len(model.lanes) == 2 for model in lanes.models)


if __name__ == "__main__":
    sys.exit(main())
