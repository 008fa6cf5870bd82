"""The worker as a process: it announces its start, serves, drains; what stops it from starting is one line."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from serin.control.v1 import registry_pb2
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.server import StartupFailed
from serin_mesh.settings import ServiceSettings, SettingsError
from serin_mesh.testing import ControlTwin, running
from serin_worker import __main__ as worker
from serin_worker.assembly import serving
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.description import EngineDescription
from serin_worker.device import device_of
from serin_worker.errors import NumericsLost
from serin_worker.loop import EngineLoop
from serin_worker.namespaces import Namespaces
from serin_worker.numerics_watch import MAX_FAILURES_IN_A_ROW
from serin_worker.serving import Serving
from serin_worker.settings import WorkerSettings
from serin_worker.testing import engine_without_model


def command(*flags: str) -> list[str]:
    """How a worker is started."""
    return [sys.executable, "-m", "serin_worker", "--model", "tiny", *flags]


async def test_from_start_to_drain(tiny_folder, tmp_path):
    """Announced as starting, then ready with digests; serves; SIGTERM finishes the running stream and withdraws."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    control = ControlTwin(heartbeat_s=0.1)
    async with running(control.register, "control") as plane:
        flags = ("--model-path", str(tiny_folder("llama")), "--control", plane.address, "--instance", "worker-1")
        process = await asyncio.create_subprocess_exec(
            *command(*flags, "--kv-blocks", "32", "--mesh-secret-file", str(secret)),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            instance = await control.state_of("worker-1", registry_pb2.INSTANCE_STATE_READY)
            digests, capacity = instance.heartbeat.digests, instance.heartbeat.capacity
            assert len(digests.vocabulary) == len(digests.kv) == len(digests.artifact) == 32
            assert digests.numerics_class.startswith("cpu-")
            assert (capacity.block_count, capacity.context_length) == (32, 256)
            settings = ServiceSettings()
            async with connect(instance.registration.endpoint, settings, service="worker") as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                call = stub.Generate(
                    worker_pb2.GenerateRequest(
                        request_id="r",
                        vocabulary_digest=digests.vocabulary,
                        prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1, 2, 3]))],
                        sampling=sampling_pb2.SamplingParameters(temperature=0.0, max_tokens=200),
                    )
                )
                events = []
                async for event in call:
                    if not events:
                        process.send_signal(signal.SIGTERM)
                        process.send_signal(signal.SIGTERM)
                    events.append(event)
            assert events[0].WhichOneof("event") == "started"
            assert events[-1].WhichOneof("event") == "summary"
            assert events[-1].summary.generated_token_count == 200
            await control.withdrawn("worker-1")
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            lines = [json.loads(line) for line in errors.splitlines() if line.startswith(b"{")]
            stages = [line["activity"] for line in lines if line["event"] == "worker.starting"]
            assert stages[0] == "loading libraries"
            assert stages[-2:] == ["preparing weights", "checking the model"]
            assert len(stages) == len(set(stages))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_it_listens_before_it_imports_torch():
    """The process answers "starting" within a second, not after torch's import."""
    script = "import sys, serin_worker.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_batched_tokens": 3}, ("--max-batched-tokens: 3: accepted: 64 or more, so that each of as many seq",)),
        ({"context_length": 300}, ("--context-length: 300: accepted: 1 to 256, the positions that the model has",)),
        (
            {"kv_blocks": 1},
            ("--kv-blocks: 1: accepted: 8 or more, ", "a short sequence fits: 128 tokens, 16 in a block"),
        ),
        ({"kv_blocks": 3, "block_size": 32}, ("--kv-blocks: 3: accepted: 4 or more, ", "128 tokens, 32 in a block")),
        (
            {"kv_blocks": 8, "context_length": 200},
            ("--kv-blocks: 8: accepted: 13 or more, ", "a sequence of context_length fits: 200 tokens, 16 in a block"),
        ),
        ({"kv_cache_bytes": 1}, ("--kv-cache-bytes: 1: accepted: ", "a short sequence fits: 128 tokens")),
        ({"mesh_secret_file": "/no/secret"}, ("--mesh-secret-file", "/no/secret")),
    ],
)
async def test_settings_that_fit_no_engine(tiny_folder, changes, words):
    """Each is one line that names the setting and what would be accepted."""
    settings = WorkerSettings(model="tiny", model_path=str(tiny_folder("llama")), **changes)
    with pytest.raises(SettingsError) as caught:
        async with serving(settings, lambda activity, progress: None):
            raise AssertionError("it started")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:77"])
async def test_a_device_that_is_not_there(tiny_folder, device):
    """The flag is named with what torch has; a crash would be tried again and again."""
    settings = WorkerSettings(model="tiny", model_path=str(tiny_folder("llama")), device=device)
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("it is there")
    with pytest.raises(SettingsError) as caught:
        async with serving(settings, lambda activity, progress: None):
            raise AssertionError("it started")
    assert str(caught.value).startswith(f"--device: {device}: accepted: c")
    if not torch.cuda.is_available():
        assert "torch says" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "names"), [(1, "cuda:0, the GPUs"), (4, "cuda:0 to cuda:3, the GPUs")])
def test_a_gpu_beyond_the_last(monkeypatch, count, names):
    """Told which there are."""
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(BadConfig, match=names):
        device_of(EngineConfig(device="cuda:4"))
    assert device_of(EngineConfig(device="cuda:0")).index == 0


async def test_progress_is_told_while_it_loads(tiny_folder):
    """What is being done and how far, growing to the end."""
    said: list[tuple[str, float]] = []
    settings = WorkerSettings(model="tiny", model_path=str(tiny_folder("llama")), kv_blocks=8)
    async with serving(settings, lambda activity, progress: said.append((activity, progress))) as made:
        assert made.vocabulary_digest
    assert said[-1] == ("checking the model", 1.0)
    assert len(said) == len(set(said))
    assert [progress for _, progress in said] == sorted(progress for _, progress in said)


async def test_a_worker_that_computes_no_numbers_any_more_drains_itself(monkeypatch):
    """Requests that end in NaN fail alone and are counted; after three it lets the others end, and leaves."""
    engine, runner = engine_without_model(max_num_sequences=4)
    compute, is_told = runner.run, threading.Event()

    def damaged(plan):
        result = compute(plan)
        for work, rows in result.rows:
            if not work.sequence.group.request_id.startswith("good"):
                result.logits[rows] = torch.nan
        is_told.wait(0.005)  # until then the good one is under way: its steps take their time
        return result

    runner.run = damaged
    figures = CollectorRegistry()
    monkeypatch.setattr(worker, "registry", lambda: figures)

    @asynccontextmanager
    async def damaged_serving(settings, say):
        loop = EngineLoop(engine)
        loop.start()
        about = EngineDescription(Path(), "a" * 32, "b" * 32, "", "", "", 64, 4, 0, 256, 4, 50, "")
        yield Serving(loop, about, "c" * 32, Namespaces(b"s" * 32, ""), "tiny", "v1", "worker-1")
        await loop.stop()

    monkeypatch.setattr(worker, "_import_assembly", lambda: SimpleNamespace(serving=damaged_serving))
    control = ControlTwin(heartbeat_s=0.1)
    async with running(control.register, "control") as plane:
        settings = WorkerSettings(
            model="tiny",
            model_path="none",
            version="v1",
            instance="worker-1",
            control=plane.address,
            drain_notice_s=0.05,
        )
        serving_it = asyncio.create_task(worker._serve(settings))
        instance = await control.state_of("worker-1", registry_pb2.INSTANCE_STATE_READY)
        async with connect(instance.registration.endpoint, ServiceSettings(), service="worker") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            good = stub.Generate(generate("good", 100))
            assert (await good.read()).WhichOneof("event") == "started"
            for number in range(MAX_FAILURES_IN_A_ROW):
                with pytest.raises(MeshError) as caught:
                    [event async for event in stub.Generate(generate(f"bad-{number}", 5))]
                assert caught.value.reason is Reason.NUMERICS_FAILED
            assert b'serin_worker_not_finite_total{model_name="tiny"} 3.0' in generate_latest(figures)
            await control.state_of("worker-1", registry_pb2.INSTANCE_STATE_DRAINING)
            is_told.set()
            while (event := await good.read()).WhichOneof("event") != "summary":
                pass
            assert event.summary.generated_token_count == 100
        await control.withdrawn("worker-1")
        with pytest.raises(StartupFailed, match="3 requests in a row") as failed:
            await serving_it
        assert isinstance(failed.value.__cause__, NumericsLost)


def generate(name: str, max_tokens: int) -> worker_pb2.GenerateRequest:
    """A greedy request."""
    return worker_pb2.GenerateRequest(
        request_id=name,
        vocabulary_digest="c" * 32,
        prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1, 2, 3]))],
        sampling=sampling_pb2.SamplingParameters(temperature=0.0, max_tokens=max_tokens),
    )
