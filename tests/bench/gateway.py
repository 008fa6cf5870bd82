"""Our gateway and LiteLLM's proxy on the same load, per CPU second of their processes: `make bench-gateway`.

    python tests/bench/gateway.py [--requests 100000] [--only serin|litellm] [--out FILE]

Each side answers from nothing: what is measured is the way there and back. Short chats from 16 connections; streams, as
many as fit and paced like people's; what a chat waits longer than at the back end, at half of the most that the side
carried; memory over many chats; two processes of ours against one.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc
from gateway_sides import FAST, PACED, Side, litellm, ours
from harness.instances import endpoint_of
from harness.running_mesh import RunningMesh
from http_load import Connection, Load, chats, paced, quantile, streams
from load import WorkerDoor
from processes import Processes
from report import keep, show
from rich.console import Console
from serin.control.v1 import registry_pb2
from serin_mesh.identity import vocabulary_digest
from vocabulary import ordinary_ids

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_OUT = ROOT / "build" / "bench" / "gateway.json"
DEFAULT_LITELLM = ROOT / "build" / "bench" / "litellm" / "venv"
GOALS = {
    "requests_ratio": 5.0, "added_p50_ms": 3.0, "chunks_per_cpu_s": 8_000.0, "tokens_per_cpu_s": 50_000.0,
    "added_gap_p99_ms": 25.0, "two_gateways": 1.1,
}  # fmt: skip
CHAT_TOKENS = 16
PROMPT_LENGTH = 60
MEMORY_LOOKS = 10


def main(argv: list[str] | None = None) -> int:
    """Measure, print, keep; returns 0 where the goals are met."""
    parser = argparse.ArgumentParser(description="Measure the gateway beside LiteLLM's proxy.")
    parser.add_argument(
        "--chats", type=int, default=6_000, help="short chats of ours that are measured (default: 6,000)"
    )
    parser.add_argument("--litellm-chats", type=int, default=1_000, help="the same for LiteLLM (default: 1,000)")
    parser.add_argument("--connections", type=int, default=16, help="connections of short chats (default: 16)")
    parser.add_argument("--streams", type=int, default=256, help="streams at once (default: 256)")
    parser.add_argument("--stream-tokens", type=int, default=300, help="tokens of each of them (default: 300)")
    parser.add_argument("--paced", type=float, default=6_000, help="tokens/s of all paced streams (default: 6,000)")
    parser.add_argument("--requests", type=int, default=100_000, help="chats for memory; 0: none (default: 100,000)")
    parser.add_argument("--only", choices=["serin", "litellm"], help="one of the two sides")
    parser.add_argument(
        "--litellm", type=Path, default=DEFAULT_LITELLM, help="its environment; made if it is not there"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {"goals": GOALS, "sides": {}}
    with tempfile.TemporaryDirectory(prefix="serin-bench-") as name:
        folder = Path(name)
        if arguments.only != "litellm":
            with ours(folder, arguments.paced) as (side, mesh):
                results["sides"]["serin"] = asyncio.run(_measure(side, arguments, arguments.chats, mesh))
            with ours(folder, arguments.paced, num_gateways=2) as (side, _):
                results["two_gateways"] = asyncio.run(_measure_two(side, arguments))
        if arguments.only != "serin":
            with litellm(folder, arguments.litellm, arguments.paced) as side:
                results["sides"]["litellm"] = asyncio.run(_measure(side, arguments, arguments.litellm_chats))
    results["verdicts"] = _verdicts(results)
    _show(results)
    keep(arguments.out, results)
    return 0 if all(verdict["met"] for verdict in results["verdicts"].values()) else 1


async def _measure(
    side: Side, arguments: argparse.Namespace, num_chats: int, mesh: RunningMesh | None = None
) -> dict[str, Any]:
    processes = Processes({**side.gateways, **side.others, "client": os.getpid()})
    result: dict[str, Any] = {}
    async with _connected(side.urls, side.key, FAST, arguments.connections) as connections:
        _say(side, f"{num_chats:,} short chats")
        await _until_answered(connections[0])
        await chats(connections, max(100, num_chats // 10), CHAT_TOKENS)
        processes.begin()
        load = await chats(connections, num_chats, CHAT_TOKENS)
        result["chats"] = _costs(side, processes, load, len(load.answers))
    half = load.per_s / 2
    async with _connected(side.urls, side.key, FAST, 64) as connections:
        _say(side, f"chats at half of that: {half:.0f}/s")
        count = min(num_chats, int(10 * half) + 100)
        through = await paced(connections, count, half, CHAT_TOKENS)
        direct = await _direct(side, arguments, count, half, mesh)
        result["half_load"] = {
            "chats_per_s": half,
            **{f"p{n}_ms": through.latency_ms(n / 100) for n in (50, 99)},
            **{f"direct_p{n}_ms": 1e3 * quantile(direct, n / 100) for n in (50, 99)},
        }
    for model, about in ((FAST, "as many tokens as fit"), (PACED, f"{arguments.paced:,.0f} tokens/s")):
        async with _connected(side.urls, side.key, model, arguments.streams) as connections:
            _say(side, f"{arguments.streams} streams of {arguments.stream_tokens} tokens: {about}")
            await _until_answered(connections[0])
            processes.begin()
            load = await streams(connections, arguments.stream_tokens)
            result[f"streams_{model}"] = {
                **_costs(side, processes, load, load.num_tokens), "chunks": load.num_chunks,
                "first_p50_ms": load.first_ms(0.5), "gap_p50_ms": load.gap_ms(0.5), "gap_p99_ms": load.gap_ms(0.99),
            }  # fmt: skip
    if arguments.requests and mesh is not None:
        result["memory"] = await _memory(side, arguments)
    return result


async def _measure_two(side: Side, arguments: argparse.Namespace) -> dict[str, Any]:
    processes = Processes({**side.gateways, **side.others, "client": os.getpid()})
    async with _connected(side.urls, side.key, FAST, arguments.connections) as connections:
        _say(side, f"{arguments.chats:,} short chats over two gateways")
        for connection in connections[:2]:
            await _until_answered(connection)
        await chats(connections, max(100, arguments.chats // 10), CHAT_TOKENS)
        processes.begin()
        load = await chats(connections, arguments.chats, CHAT_TOKENS)
        return _costs(side, processes, load, len(load.answers))


async def _memory(side: Side, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """MiB of the gateway processes, after each tenth of the chats."""
    looks = []
    watched = Processes(side.gateways)
    done = 0
    async with _connected(side.urls, side.key, FAST, arguments.connections) as connections:
        for _ in range(MEMORY_LOOKS):
            await chats(connections, arguments.requests // MEMORY_LOOKS, CHAT_TOKENS)
            done += arguments.requests // MEMORY_LOOKS
            rss = sum(cost.rss_mib for cost in watched.costs().values())
            looks.append({"chats": done, "rss_mib": rss})
            _say(side, f"{done:,} chats: {rss:.1f} MiB")
    return looks


async def _direct(
    side: Side, arguments: argparse.Namespace, count: int, per_s: float, mesh: RunningMesh | None
) -> Sequence[float]:
    """Seconds that the same answers take at the back end itself, at the same rate."""
    if mesh is None:
        async with _connected([side.direct], side.key, FAST, 64) as connections:
            return [answer.duration_s for answer in (await paced(connections, count, per_s, CHAT_TOKENS)).answers]
    model = ROOT / "deploy" / "models" / "small" / "v2"
    endpoint = await endpoint_of(mesh, registry_pb2.SERVICE_KIND_WORKER, FAST)
    prompt = [list(ordinary_ids(model))[index % 20] for index in range(PROMPT_LENGTH)]
    async with grpc.aio.insecure_channel(endpoint) as channel:
        door = WorkerDoor(channel, vocabulary_digest(model))
        durations: list[float] = []

        async def ask() -> None:
            durations.append((await door.ask(prompt, CHAT_TOKENS)).duration_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(ask())
                await asyncio.sleep(1 / per_s)
        return durations


@contextlib.asynccontextmanager
async def _connected(urls: Sequence[str], key: str, model: str, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections, in turn to each URL."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Connection(urls[index % len(urls)], key, model)) for index in range(count)
        ]


async def _until_answered(connection: Connection) -> None:
    """A lane may be a moment younger than its worker's lease."""
    async with asyncio.timeout(60):
        while True:
            try:
                await connection.chat("Hello?", 4)
                return
            except RuntimeError:
                await asyncio.sleep(0.2)
                await connection.__aexit__()
                await connection.__aenter__()


def _costs(side: Side, processes: Processes, load: Load, units: int) -> dict[str, Any]:
    costs = processes.costs()
    gateways = sum(costs[name].cpu_s for name in side.gateways)
    return {
        "wall_s": load.wall_s,
        "units": units,
        "per_s": units / load.wall_s,
        "gateway_cpu_s": gateways,
        "per_gateway_cpu_s": units / gateways,
        "p50_ms": load.latency_ms(0.5),
        "p99_ms": load.latency_ms(0.99),
        "cpu_s": {name: cost.cpu_s for name, cost in costs.items()},
        "rss_mib": {name: costs[name].rss_mib for name in side.gateways},
    }


def _verdicts(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was promised, what was measured."""
    sides, verdicts = results["sides"], {}

    def judge(name: str, value: float, *, at_least: bool) -> None:
        goal = GOALS[name]
        verdicts[name] = {"value": value, "goal": goal, "met": value >= goal if at_least else value <= goal}

    if (serin := sides.get("serin")) is not None:
        fast, slow, half = serin["streams_fast"], serin["streams_paced"], serin["half_load"]
        judge("added_p50_ms", half["p50_ms"] - half["direct_p50_ms"], at_least=False)
        judge("chunks_per_cpu_s", slow["chunks"] / slow["gateway_cpu_s"], at_least=True)
        judge("tokens_per_cpu_s", fast["per_gateway_cpu_s"], at_least=True)
        judge("added_gap_p99_ms", slow["gap_p99_ms"] - slow["gap_p50_ms"], at_least=False)
        one, two = serin["chats"]["per_gateway_cpu_s"], results["two_gateways"]["per_gateway_cpu_s"]
        judge("two_gateways", one / two, at_least=False)
        if (other := sides.get("litellm")) is not None:
            judge("requests_ratio", one / other["chats"]["per_gateway_cpu_s"], at_least=True)
    return verdicts


def _show(results: dict[str, Any]) -> None:
    sides = results["sides"]
    columns = ["side", "chats/s", "a CPU second", "added p50 ms", "added p99 ms", "MiB"]
    show("short chats", columns, [(name, *_chats_row(side)) for name, side in sides.items()])
    columns = ["streams", "tokens/s", "tokens a CPU second", "chunks a CPU second", "first ms", "gap p50 ms", "p99 ms"]
    kinds = [(name, side, model) for name, side in sides.items() for model in (FAST, PACED)]
    rows = [(f"{name}, {model}", *_streams_row(side[f"streams_{model}"])) for name, side, model in kinds]
    show("streams", columns, rows)
    rows = [
        (name, verdict["value"], verdict["goal"], "yes" if verdict["met"] else "NO")
        for name, verdict in results["verdicts"].items()
    ]
    show("promised", ["what", "measured", "goal", "met"], rows)


def _chats_row(side: dict[str, Any]) -> tuple[float, ...]:
    measured, half = side["chats"], side["half_load"]
    added = (half[f"p{n}_ms"] - half[f"direct_p{n}_ms"] for n in (50, 99))
    return measured["per_s"], measured["per_gateway_cpu_s"], *added, sum(measured["rss_mib"].values())


def _streams_row(stream: dict[str, Any]) -> tuple[float, ...]:
    chunks = stream["chunks"] / stream["gateway_cpu_s"]
    gaps = stream["first_p50_ms"], stream["gap_p50_ms"], stream["gap_p99_ms"]
    return stream["per_s"], stream["per_gateway_cpu_s"], chunks, *gaps


def _say(side: Side, what: str) -> None:
    Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {side.name}: {what}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
