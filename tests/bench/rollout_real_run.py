"""One real rollout: a version is added to a running mesh, rolled out under traffic, judged, and taken away again.

Everything is done with the commands that a person would type. Knows nothing about tables.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.running_mesh import MeshFailed, RunningMesh
from rollout_real_builds import write_build, write_files
from rollout_real_cases import MAX_DURATION, MIN_SAMPLES, REFUSED, STEPS, UNDECIDED, RealCase
from rollout_real_load import Callers
from serin.control.v1 import rollout_pb2, rollout_pb2_grpc
from serin_cli.rollouts import shown
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

COMMAND_S = 300.0
BEFORE_S = 8.0
AFTER_S = 3.0
POLL_S = 0.25
PATIENCE_S = 900.0
NUM_TRIES = 15
KEPT_VERDICT = ("metric", "verdict", "difference", "low", "high", "samples", "stable", "canary", "tolerance", "note")


@dataclass(frozen=True)
class Bench:
    """Where rollouts take place one after the other; other benches of the same mesh have models of their own.

    Attributes:
        number: its number within the mesh.
        folder: for builds and model folders.
        golden: the golden set.
        num_callers, questions: of the traffic; each caller has one session at a time.
    """

    mesh: RunningMesh
    number: int
    folder: Path
    golden: Path
    num_callers: int
    questions: Sequence[Sequence[str]]

    def model(self, stable: str) -> str:
        """The model whose traffic a demo version has."""
        return model_name(stable, self.number)

    async def serin(self, *arguments: str) -> str:
        """Run a command on the mesh.

        Raises:
            MeshFailed: it did not succeed.
            TimeoutError: it did not end.
        """
        async with asyncio.timeout(COMMAND_S):
            return await asyncio.to_thread(self.mesh.serin, *arguments)


def model_name(stable: str, number: int) -> str:
    """Name of the model that serves a demo version on a bench."""
    return f"demo-{stable}-{number}"


async def real_rollout(bench: Bench, case: RealCase, tag: str) -> dict[str, Any]:
    """Run one; returns what is known of it, as JSON. ``tag`` makes names that were not used in this mesh before.

    Raises:
        MeshFailed: a command that must succeed did not; nothing is known then.
    """
    model, version = bench.model(case.stable), f"{case.name}-{tag}"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        if case.stable_build:
            await _make_stable(bench, case, model, f"{version}-old")
        adding = asyncio.create_task(_add(bench, case, model, version))
        if case.starts:
            await adding
        callers = Callers(bench.mesh.rest, bench.mesh.key, model, bench.num_callers, version, bench.questions)
        async with callers:
            await asyncio.sleep(BEFORE_S)
            began = time.monotonic()
            ended = await _ended(bench, case, model, version)
            seconds = time.monotonic() - began
            await asyncio.sleep(AFTER_S)
        await asyncio.gather(adding, return_exceptions=True)
    finally:
        await _clean_up(bench, case, model, version)
    return {"case": case.name, "at": at, "seconds": seconds, **ended, "callers": callers.seen.document()}


async def _make_stable(bench: Bench, case: RealCase, model: str, version: str) -> None:
    """Another build gets all traffic first, by a person's promotion; that is no rollout that counts."""
    code = await asyncio.to_thread(_build, bench, case.stable_build)
    await bench.serin("add", "worker", "--model", model, "--version", version, "--code", str(code))
    asked = ("--model", model, "--service", "worker", "--to", version, "--intent", "same", "--steps", STEPS)
    rollout_id = (await bench.serin("rollout", "start", *asked)).split()[-1]
    await bench.serin("rollout", "promote", rollout_id, "--reason", "what comes next is compared with it")


async def _add(bench: Bench, case: RealCase, model: str, version: str) -> None:
    said = ["--model", model, "--version", version]
    if case.build:
        said += ["--code", str(await asyncio.to_thread(_build, bench, case.build))]
    else:
        said += ["--path", str(await asyncio.to_thread(_files, bench, case.files or case.stable))]
    if case.also_tokenizer:
        await bench.serin("add", "tokenizer", *said)
    await bench.serin("add", "worker", *said)


def _build(bench: Bench, name: str) -> Path:
    made = bench.folder / name
    return made if made.exists() else write_build(name, bench.folder)


def _files(bench: Bench, name: str) -> Path:
    made = bench.folder / name
    return made if made.exists() else write_files(name, bench.folder)


async def _ended(bench: Bench, case: RealCase, model: str, version: str) -> dict[str, Any]:
    """Start it and wait until it has ended."""
    asked = ["--model", model, "--service", "worker", "--to", version, "--intent", case.intent, "--steps", STEPS]
    asked += ["--min-samples", str(MIN_SAMPLES), "--max-duration", MAX_DURATION]
    asked += [part for metric, most in case.tolerances.items() for part in ("--tolerance", f"{metric}={most}")]
    asked += ["--also", "tokenizer"] if case.also_tokenizer else []
    asked += ["--golden", str(bench.golden)] if case.golden else []
    command = " ".join(["serin", "rollout", "start", *asked])
    for tries_left in reversed(range(NUM_TRIES)):
        try:
            rollout_id = (await bench.serin("rollout", "start", *asked)).split()[-1]
            break
        except MeshFailed as refused:
            # A version that crashes is announced only now and then.
            if case.starts or not tries_left or "nobody announces" not in str(refused):
                why = str(refused).partition(" ended with ")[2].partition(": ")[2].strip()
                return {"command": command, "end": REFUSED, "reason": why, "sessions": 0, "requests": 0}
    rollout = await _wait(bench, rollout_id)
    document = shown.document(rollout)
    end = document["state"]
    if end not in shown.ENDED:
        end = UNDECIDED
        await bench.serin("rollout", "abort", rollout_id, "--reason", "the benchmark goes on")
    return {
        "command": command,
        "id": rollout_id,
        "end": end,
        "reason": document["reason"],
        "sessions": document["exposure"]["sessions"],
        "requests": document["exposure"]["requests"],
        "verdicts": [{key: one[key] for key in KEPT_VERDICT} for one in document["verdicts"]],
    }


async def _wait(bench: Bench, rollout_id: str) -> rollout_pb2.Rollout:
    """The rollout once it has ended, or does not go on by itself."""
    deadline = time.monotonic() + PATIENCE_S
    halted = (
        rollout_pb2.ROLLOUT_STATE_PROMOTED,
        rollout_pb2.ROLLOUT_STATE_ABORTED,
        rollout_pb2.ROLLOUT_STATE_PAUSED,
    )
    async with connect(bench.mesh.control, ServiceSettings(), service="control") as channel:
        stub = rollout_pb2_grpc.RolloutServiceStub(channel)
        while True:
            rollout = (await stub.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id=rollout_id))).rollout
            if rollout.state in halted or time.monotonic() > deadline:
                return rollout
            await asyncio.sleep(POLL_S)


async def _clean_up(bench: Bench, case: RealCase, model: str, version: str) -> None:
    """All traffic back on the declared version; nothing that was added stays."""
    commands = [["rollback", "--model", model, "--to", case.stable]]
    services = ("worker", "tokenizer") if case.also_tokenizer else ("worker",)
    added = [(service, version) for service in services]
    added += [("worker", f"{version}-old")] if case.stable_build else []
    commands += [["remove", service, "--model", model, "--version", name] for service, name in added]
    for command in commands:
        try:
            await bench.serin(*command)
        except MeshFailed as problem:
            # What is there already, or was never added, needs no cleaning.
            print(f"  serin {' '.join(command)}: {str(problem).rpartition(': ')[2].strip()}", flush=True)
