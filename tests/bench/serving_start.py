"""From exec to ready, beside a plain read of the weights; where the time goes. A process of its own for each start."""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from harness.leash import leashed
from report import show
from serin_worker.config import EngineConfig
from serin_worker.startup import load_engine
from serving_promise import at_most, kept, show_promises
from serving_scale import Scale

READ_GOAL = 3.0
READ_BYTES = 1 << 24
KV_CACHE_BYTES = 200_000_000


class NotStarted(Exception):
    """The process ended before it was ready; the message holds what it said last."""


@contextmanager
def started(command: list[str], until: str = "service.ready") -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A service of ours and what it logged until that event, by name; stopped when left.

    Each event has its ``seconds`` since the process was started.
    """
    began = time.perf_counter()
    process = subprocess.Popen(leashed(command), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    events: dict[str, Any] = {}
    draining: threading.Thread | None = None
    try:
        for line in process.stderr:
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            events[event["event"]] = {**event, "seconds": time.perf_counter() - began}
            if until in events:
                break
        else:
            raise NotStarted(f"{' '.join(command)}: it ended before {until}; it said {list(events.values())[-1:]}")
        draining = threading.Thread(target=process.stderr.read, name="what else it logs")  # a full pipe would stop it
        draining.start()
        yield process, events
    finally:
        process.terminate()
        process.wait(60)
        if draining is not None:
            draining.join()


def measure_start(model: Path, scale: Scale) -> dict[str, Any]:
    """Starts in turn with plain reads, all with a warm cache; the stages of loading, once, in this process."""
    command = [
        sys.executable, "-m", "serin_worker", "--model", "bench", "--model-path", str(model.resolve()),
        "--kv-cache-bytes", str(min(KV_CACHE_BYTES, scale.kv_bytes)), "--log-format", "json",
    ]  # fmt: skip
    _read(model)
    reads, rounds = [], []
    for _ in range(scale.rounds):
        reads.append(_read(model))
        with started(command) as (process, events):
            rounds.append(
                {
                    "ready": events["service.ready"]["seconds"],
                    "listening": events["service.listening"]["seconds"],
                    "libraries": events["cache.private"]["seconds"],
                    "cpu": sum(psutil.Process(process.pid).cpu_times()[:2]),
                }
            )
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    read_s = statistics.median(reads)
    stages = _stages(model, scale)
    show(
        "where a start goes (warm cache), seconds",
        ("part", "s"),
        [
            ("interpreter, the mesh's part, listening", f"{middle['listening']:.2f}"),
            ("importing torch and transformers", f"{middle['libraries'] - middle['listening']:.2f}"),
            ("loading the model, until ready", f"{middle['ready'] - middle['libraries']:.2f}"),
            *((f"    {name} (in this process, once)", f"{seconds:.2f}") for name, seconds in stages.items()),
        ],
        (f"CPU seconds of all of it: {middle['cpu']:.2f}; a plain read of the weights: {read_s:.2f} s",),
    )
    promise = at_most("from exec to ready, in plain reads of the weights", middle["ready"] / read_s, READ_GOAL)
    show_promises("start-up", [promise])
    return kept([promise], reads_s=reads, starts=rounds, stages=stages)


def _stages(model: Path, scale: Scale) -> dict[str, float]:
    """Seconds until each stage of loading was left."""
    took: dict[str, float] = {}
    last = time.perf_counter()

    def progress(stage: str, fraction: float) -> None:
        nonlocal last
        now = time.perf_counter()
        took[stage] = took.get(stage, 0.0) + now - last
        last = now

    load_engine(str(model), EngineConfig(kv_bytes=min(KV_CACHE_BYTES, scale.kv_bytes)), progress)
    return took


def _read(model: Path) -> float:
    began = time.perf_counter()
    for path in model.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass
    return time.perf_counter() - began
