"""Behind the mesh the real worker on the bench model: what the mesh takes away from it, and adds to the first token.

What the mesh adds is a few milliseconds beside seconds of computing that differ by more than that from one request to
the next. So the worker's own time to the first token, by its metrics, is taken off each request before doors are
compared.
"""

import argparse
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from harness.instances import ready_registrations
from harness.metrics import read_metrics
from harness.running_mesh import RunningMesh
from load import Burst, GrpcDoor, RestDoor, Streamed, WorkerDoor, burst
from report import show
from serin.control.v1 import registry_pb2
from serin_mesh.identity import vocabulary_digest
from tokenizers import Tokenizer
from vocabulary import ordinary_ids

MODEL = "bench"
CONTEXT = 128
TOKENS = 64
FIRST_TOKEN_WORDS = 24
FIRST_TOKEN_PAIRS = 20
KEPT_GOAL = 0.95
ADDED_GOAL_MS = 10.0
NOISY = 1.25
"""Rounds that differ by more than this factor say more about the machine than about the mesh."""

Ask = Callable[[Any, int], Awaitable[Streamed]]


async def measure_engine(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ask worker, gRPC and REST in turn, over and over; medians of the ratios and of the differences count."""
    declaration = (
        f"models:\n  {MODEL}:\n    path: {arguments.model.resolve()}\n    precision: bfloat16\n    kv_blocks: 1024\n"
        f"    max_sequences: {max(16, arguments.streams)}\n"
    )
    mesh = RunningMesh(folder / "engine", declaration)
    mesh.start()
    try:
        registration = (await ready_registrations(mesh, registry_pb2.SERVICE_KIND_WORKER, MODEL))[0]
        endpoint, metrics = registration.endpoint, registration.http_endpoint
        async with grpc.aio.insecure_channel(endpoint) as worker, grpc.aio.insecure_channel(mesh.grpc) as gateway:
            doors: dict[str, Ask] = {
                "worker": WorkerDoor(worker, vocabulary_digest(arguments.model)).ask,
                "grpc": GrpcDoor(gateway, mesh.key, MODEL).ask,
                "rest": RestDoor(mesh.rest, mesh.key, MODEL).ask,
            }
            kept = await _measure_throughput(doors, arguments)
            tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
            added = await _measure_first_token(doors, tokenizer, metrics)
    finally:
        mesh.stop()
    _show(arguments, kept, added)
    return {"throughput": kept, "first_token": added}


async def _measure_throughput(doors: dict[str, Ask], arguments: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(0)
    ids = ordinary_ids(arguments.model)
    rounds: list[dict[str, Burst]] = []
    for number in range(arguments.rounds + 1):
        measured = {}
        order = list(doors.items())
        for name, ask in order if number % 2 else reversed(order):  # a machine that drifts favours nobody
            prompts = [rng.choices(ids, k=CONTEXT) for _ in range(arguments.streams)]
            measured[name] = await burst(
                lambda index, ask=ask, prompts=prompts: ask(prompts[index], TOKENS), len(prompts)
            )
        if number:  # the first round warms up
            rounds.append(measured)
    rates = {name: [one[name].tokens_per_s for one in rounds] for name in doors}
    ratios = {
        name: [through / direct for through, direct in zip(rates[name], rates["worker"], strict=True)]
        for name in ("grpc", "rest")
    }
    return {
        "streams": arguments.streams,
        "tokens_per_s": {name: median(values) for name, values in rates.items()},
        "rounds": rates,
        "ratios": ratios,
        "kept": {name: median(values) for name, values in ratios.items()},
    }


async def _measure_first_token(doors: dict[str, Ask], tokenizer: Tokenizer, metrics: str) -> dict[str, Any]:
    rng = random.Random(1)
    seen: dict[str, list[float]] = {name: [] for name in doors}
    around: dict[str, list[float]] = {name: [] for name in doors}
    engine = await _engine_first_tokens(metrics)
    for number in range(FIRST_TOKEN_PAIRS):
        text = " ".join(
            rng.choice(["return", "import", "value", "name", "self", "path"]) for _ in range(FIRST_TOKEN_WORDS)
        )
        order = list(zip("abc", doors.items(), strict=True))
        for letter, (name, ask) in order if number % 2 else reversed(order):
            own = f"{letter} {rng.random()} {text}"  # a text of its own from its first letter on: nothing is reused
            streamed = await ask(tokenizer.encode(own).ids if name == "worker" else own, 2)
            before, engine = engine, await _engine_first_tokens(metrics)
            seen[name].append(streamed.first_token_s * 1000)
            if engine[0] - before[0] == 1:  # else it was cancelled before its last word, and not counted
                around[name].append((streamed.first_token_s - (engine[1] - before[1])) * 1000)
    beside_engine = {name: median(values) for name, values in around.items()}
    return {
        "p50_ms": {name: median(values) for name, values in seen.items()},
        "beside_engine_ms": beside_engine,
        "added_ms": {name: beside_engine[name] - beside_engine["worker"] for name in ("grpc", "rest")},
        "all_ms": seen,
        "all_beside_engine_ms": around,
    }


async def _engine_first_tokens(metrics: str) -> tuple[float, float]:
    """How many first tokens the worker has made, and the seconds they took it from the requests' arrival."""
    name = "vllm:time_to_first_token_seconds"
    totals = await read_metrics(metrics)
    return totals.get(f"{name}_count", 0.0), totals.get(f"{name}_sum", 0.0)


def _show(arguments: argparse.Namespace, kept: dict[str, Any], added: dict[str, Any]) -> None:
    rows = [
        (
            name,
            kept["tokens_per_s"][name],
            100 * kept["kept"].get(name, 1.0),
            added["p50_ms"][name],
            added["beside_engine_ms"][name],
            added["added_ms"].get(name, 0.0),
        )
        for name in kept["tokens_per_s"]
    ]
    verdicts = [
        f"{name}: {_word(kept['kept'][name] >= KEPT_GOAL)} the goal of {KEPT_GOAL:.0%} of the worker's tokens/s, "
        f"{_word(added['added_ms'][name] <= ADDED_GOAL_MS)} the goal of {ADDED_GOAL_MS:.0f} ms added to the first token"
        for name in ("grpc", "rest")
    ]
    for name, values in kept["ratios"].items():
        shown = " ".join(f"{value:.2f}" for value in values)
        noisy = max(values) > NOISY * min(values)
        verdicts.append(f"{name}, share of each round: {shown}{'; too noisy to judge' if noisy else ''}")
    title = f"bench model, {arguments.streams} streams, {arguments.rounds} rounds"
    show(title, ["asked", "tokens/s", "% of worker", "TTFT p50 ms", "beside engine ms", "added ms"], rows, verdicts)


def _word(is_met: bool) -> str:
    return "meets" if is_met else "misses"
