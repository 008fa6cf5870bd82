"""Where the engine should run: what a thread or a process of its own costs beside stepping it directly.

Usage: python tests/bench/process_model.py [--model DIR] [--rounds N]

Prints a line for each way, the best of some rounds: 32 sequences of 200 tokens, greedy. `direct` steps the engine and
throws its outputs away: nobody could serve that, it is what the others are held against. `thread` is the worker as it
is: `EngineLoop`, an asyncio reader for each sequence. `process` steps the engine in a child and sends what each step
made through a pipe to the readers, pickled, as servers with an engine process do.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.loop import EngineLoop
from serin_worker.outputs import Delta, Output
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.stream import OutputStream

SMALL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
NUM_SEQUENCES, NUM_TOKENS = 32, 200
TOTAL = NUM_SEQUENCES * NUM_TOKENS


def engine_of(model: Path) -> Engine:
    """An engine on one core, so that the other one is free for whoever reads."""
    config = EngineConfig(precision="float32", num_threads=1, max_num_sequences=NUM_SEQUENCES, context_length=512)
    engine, _ = load_engine(model, config)
    return engine


def requests() -> Iterator[GenerationRequest]:
    """The work of one round."""
    for number in range(NUM_SEQUENCES):
        stopping = Stopping(max_tokens=NUM_TOKENS, ignore_eos=True)
        yield GenerationRequest(str(number), [number + 1, 2, 3], Sampling(temperature=0.0), stopping)


def num_tokens(outputs: list[Output]) -> int:
    """Tokens in some outputs."""
    return sum(len(output.token_ids) for output in outputs if isinstance(output, Delta))


def direct(model: Path, rounds: int) -> list[tuple[float, float]]:
    """Step, and drop what comes."""
    engine = engine_of(model)

    @torch.inference_mode()
    def work() -> int:
        for request in requests():
            engine.add(request)
        made = 0
        while engine.has_work:
            made += num_tokens([output for _, output in engine.step()])
        return made

    return [timed(work) for _ in range(rounds)]


def thread(model: Path, rounds: int) -> list[tuple[float, float]]:
    """The engine's thread, asyncio readers."""

    async def read(stream: OutputStream) -> int:
        made = 0
        with stream:
            while outputs := await stream.read():
                made += num_tokens(outputs)
        return made

    async def work(loop: EngineLoop) -> int:
        return sum(await asyncio.gather(*(read(loop.submit(request)) for request in requests())))

    async def run() -> list[tuple[float, float]]:
        loop = EngineLoop(engine_of(model))
        loop.start()
        found = []
        for _ in range(rounds):
            begun, used = time.perf_counter(), cpu_s()
            assert await work(loop) == TOTAL
            found.append((time.perf_counter() - begun, cpu_s() - used))
        await loop.stop()
        return found

    return asyncio.run(run())


def process(model: Path, rounds: int) -> list[tuple[float, float]]:
    """The engine's process, a pipe, asyncio readers."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=step_for, args=(theirs, model), daemon=True)
    child.start()
    ours.recv()  # it has loaded
    found = []
    for _ in range(rounds):
        begun, used = time.perf_counter(), cpu_s()
        assert asyncio.run(read_from(ours)) == TOTAL
        found.append((time.perf_counter() - begun, cpu_s() - used + ours.recv()))
    ours.send(None)
    child.join()
    return found


async def read_from(pipe: Connection) -> int:
    """Send the work, hand what comes to a reader for each sequence; tokens read."""
    queues: dict[str, asyncio.Queue[Output | None]] = {request.request_id: asyncio.Queue() for request in requests()}

    def came() -> None:
        while pipe.poll():
            batch = pipe.recv()
            if batch is None:
                asyncio.get_running_loop().remove_reader(pipe.fileno())
                for queue in queues.values():
                    queue.put_nowait(None)
                return
            for name, output in batch:
                queues[name].put_nowait(output)

    async def read(queue: asyncio.Queue[Output | None]) -> int:
        made = 0
        while (output := await queue.get()) is not None:
            made += num_tokens([output])
        return made

    asyncio.get_running_loop().add_reader(pipe.fileno(), came)
    pipe.send(list(requests()))
    return sum(await asyncio.gather(*(read(queue) for queue in queues.values())))


@torch.inference_mode()
def step_for(pipe: Connection, model: Path) -> None:
    """The child: one round for each list of requests, then its CPU seconds."""
    engine = engine_of(model)
    pipe.send("ready")
    while (work := pipe.recv()) is not None:
        used = cpu_s()
        for request in work:
            engine.add(request)
        while engine.has_work:
            pipe.send(engine.step())
        pipe.send(None)
        pipe.send(cpu_s() - used)


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Wall and CPU seconds of a round."""
    begun, used = time.perf_counter(), cpu_s()
    assert work() == TOTAL
    return time.perf_counter() - begun, cpu_s() - used


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SMALL)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for way in (direct, thread, process):
        wall, cpu = min(way(args.model, args.rounds + 1)[1:])  # the first one warms up
        print(f"{way.__name__:8} {TOTAL / wall:8.0f} tokens/s  {1e6 * cpu / TOTAL:6.0f} us CPU a token", flush=True)


if __name__ == "__main__":
    main()
