"""Behind the mesh an engine twin that offers a set rate: what arrives, and what each process pays for it."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
from harness.instances import endpoint_of
from harness.leash import leashed
from harness.running_mesh import RunningMesh
from load import Burst, GrpcDoor, RestDoor, Streamed, WorkerDoor, burst
from processes import Processes, limit
from report import show
from serin.control.v1 import registry_pb2
from serin_mesh.identity import vocabulary_digest
from vocabulary import ordinary_ids

MODEL = "twin"
PROMPT_LENGTH = 64
IDLE_GOAL_MIB = 200


async def measure_twin(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ask the twin directly, then through the gateway's two doors."""
    declaration = f"models:\n  {MODEL}:\n    path: {arguments.model.resolve()}\n    workers: 0\n"
    mesh = RunningMesh(folder / "twin", declaration)
    mesh.start()
    try:
        with _twin(mesh, arguments, folder / "twin.log") as pid:
            return await _measure(mesh, pid, arguments)
    finally:
        mesh.stop()


async def _measure(mesh: RunningMesh, twin: int, arguments: argparse.Namespace) -> dict[str, Any]:
    endpoint = await endpoint_of(mesh, registry_pb2.SERVICE_KIND_WORKER, MODEL)
    pids = {name: member.pid for name, member in mesh.members().items()}
    processes = Processes({**pids, "twin": twin, "client": os.getpid()})
    idle = processes.costs()
    results: dict[str, Any] = {"offered_tokens_per_s": arguments.tokens_per_s, "doors": {}}
    vocabulary = vocabulary_digest(arguments.model)
    prompt = list(ordinary_ids(arguments.model))[:PROMPT_LENGTH]
    async with grpc.aio.insecure_channel(endpoint) as worker, grpc.aio.insecure_channel(mesh.grpc) as gateway:
        doors: dict[str, Callable[[list[int], int], Awaitable[Streamed]]] = {
            "twin, asked directly": WorkerDoor(worker, vocabulary).ask,
            "gateway, gRPC": GrpcDoor(gateway, mesh.key, MODEL).ask,
            "gateway, REST": RestDoor(mesh.rest, mesh.key, MODEL).ask,
        }
        rows = []
        for name, ask in doors.items():
            await _until_served(ask, prompt)
            processes.begin()
            arrived = await burst(lambda _, ask=ask: ask(prompt, arguments.twin_tokens), arguments.twin_streams)
            costs = processes.costs()
            results["doors"][name] = {
                "tokens_per_s": arrived.tokens_per_s, "wall_s": arrived.wall_s, "ttft_p50_s": _median_ttft(arrived),
                "limit": limit(costs, arrived.wall_s, os.cpu_count() or 1),
                "cpu_s": {process: cost.cpu_s for process, cost in costs.items()},
                "peak_rss_mib": {process: cost.peak_rss_mib for process, cost in costs.items()},
            }  # fmt: skip
            rows.append((name, arrived.tokens_per_s, 100 * arrived.tokens_per_s / arguments.tokens_per_s))
    results["idle"] = {process: asdict(cost) for process, cost in idle.items()}
    _show(arguments, results, rows)
    return results


def _show(arguments: argparse.Namespace, results: dict[str, Any], rows: list[tuple[str, float, float]]) -> None:
    title = f"{arguments.tokens_per_s:,.0f} tokens/s offered over {arguments.twin_streams} streams"
    doors = results["doors"]
    notes = [f"{name}: limited by {door['limit']}" for name, door in doors.items()]
    show(title, ["asked", "tokens/s arrived", "% of offer"], rows, notes)
    names = list(results["idle"])
    table = [
        (
            name,
            results["idle"][name]["rss_mib"],
            *(door["cpu_s"][name] for door in doors.values()),
            max(door["peak_rss_mib"][name] for door in doors.values()),
        )
        for name in names
    ]
    over = [name for name in names if results["idle"][name]["rss_mib"] > IDLE_GOAL_MIB and name != "client"]
    verdict = f"idle above {IDLE_GOAL_MIB} MiB: {', '.join(over) or 'none'} (children counted)"
    show("each process", ["process", "idle MiB", *(f"CPU s, {name}" for name in doors), "peak MiB"], table, [verdict])


async def _until_served(ask: Callable[[list[int], int], Awaitable[Streamed]], prompt: list[int]) -> None:
    """A lane may be a moment younger than its worker's lease."""
    async with asyncio.timeout(30):
        while True:
            try:
                await ask(prompt, 8)
                return
            except (grpc.RpcError, RuntimeError):
                await asyncio.sleep(0.2)


def _median_ttft(arrived: Burst) -> float:
    return sorted(stream.first_token_s for stream in arrived.streams)[len(arrived.streams) // 2]


@contextmanager
def _twin(mesh: RunningMesh, arguments: argparse.Namespace, log: Path):
    command = [
        sys.executable, str(Path(__file__).with_name("engine_twin.py")), "--model", MODEL,
        "--model-path", str(arguments.model.resolve()), "--control", mesh.control, "--instance", "engine-twin",
        "--tokens-per-s", str(arguments.tokens_per_s), "--max-sequences", str(arguments.twin_streams),
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(leashed(command), stdout=output, stderr=output, start_new_session=True)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
