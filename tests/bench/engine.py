"""How many tokens a second the engine computes, row by row, as JSON lines.

Usage: python tests/bench/engine.py --model DIR --precision bf16   (make_model.py beside this file writes a model)

| row | work |
|---|---|
| prefill_512 | one prompt of 512 random ids, time to its first token |
| decode_b1 | 32 tokens for one sequence after 512 of context |
| decode_b4, decode_b16, decode_b32 | 16 steps for that many sequences after 128 of context each |
| serve_32 | 32 requests at once, input and output lengths uniform in 16..128 (seed 0), every token generated |
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Iterator

import torch
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.outputs import Delta
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine

PREFILL = 512
DECODE_STEPS = 32
BATCH_CONTEXT = 128
BATCH_STEPS = 16
BATCHES = (4, 16, 32)
CACHE_BYTES = 10**9  # what the rows need; it is in memory from the start
SERVED, SERVED_LOW, SERVED_HIGH = 32, 16, 128
PRECISIONS = {
    "bf16": ("bfloat16", "none"),
    "fp16": ("float16", "none"),
    "fp32": ("float32", "none"),
    "int8": ("bfloat16", "int8"),
    "fp8": ("bfloat16", "fp8"),
}
ROWS = ("prefill_512", "decode_b1", *(f"decode_b{size}" for size in BATCHES), "serve_32")


PATIENCE = 2_048
"""Tokens that the first sequences of a batch may make while the prompts of the last are computed, at a pace that spares
them."""


class Bench:
    """The rows over one engine."""

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self._engine = engine
        self._random = random.Random(seed)
        self._number = 0

    def run(self, row: str) -> tuple[int, float]:
        """Tokens and seconds of a row."""
        if row == "prefill_512":
            return PREFILL, self._prefill()
        if row == "serve_32":
            return self._serve()
        size = int(row.removeprefix("decode_b"))
        context, steps = (PREFILL, DECODE_STEPS) if size == 1 else (BATCH_CONTEXT, BATCH_STEPS)
        return size * steps, self._decode(size, context, steps)

    def warm_up(self) -> None:
        """Touch every kernel once."""
        self._prefill()
        self._decode(2, 16, 2)

    def _prefill(self) -> float:
        self._add(PREFILL, 1)
        start = time.perf_counter()
        self._drain()
        return time.perf_counter() - start

    def _decode(self, size: int, context: int, steps: int) -> float:
        for _ in range(size):
            self._add(context, steps + PATIENCE)
        first: set[str] = set()
        while len(first) < size:
            first |= {name for name, output in self._engine.step() if isinstance(output, Delta)}
        start = time.perf_counter()
        for _ in range(steps):
            tokens = sum(len(output.token_ids) for _, output in self._engine.step() if isinstance(output, Delta))
            if tokens != size:
                raise RuntimeError(f"a decode step made {tokens} tokens for {size} sequences")
        seconds = time.perf_counter() - start
        for name in first:
            self._engine.abort(name)
        return seconds

    def _serve(self) -> tuple[int, float]:
        lengths = random.Random(0)
        total = 0
        for _ in range(SERVED):
            prompt, output = (lengths.randint(SERVED_LOW, SERVED_HIGH) for _ in range(2))
            self._add(prompt, output)
            total += output
        start = time.perf_counter()
        made = self._drain()
        if made != total:
            raise RuntimeError(f"{made} tokens were made where {total} were asked for")
        return total, time.perf_counter() - start

    def _add(self, num_prompt: int, num_output: int) -> None:
        self._number += 1
        prompt = [self._random.randrange(1_000, 7_000) for _ in range(num_prompt)]
        stopping = Stopping(max_tokens=num_output, ignore_eos=True)
        self._engine.add(GenerationRequest(str(self._number), prompt, Sampling(temperature=0.0), stopping))

    def _drain(self) -> int:
        made = 0
        while self._engine.has_work:
            made += sum(len(output.token_ids) for _, output in self._engine.step() if isinstance(output, Delta))
        return made


def measured(bench: Bench, rows: tuple[str, ...], repeats: int) -> Iterator[dict[str, object]]:
    """The best of some runs of each row; ``peak_mb`` is the process' so far."""
    for row in rows:
        tokens, seconds = min((bench.run(row) for _ in range(repeats)), key=lambda run: run[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        yield {"row": row, "tok_s": round(tokens / seconds, 2), "seconds": round(seconds, 4), "peak_mb": peak}


def main() -> None:
    """Load the model and print a JSON line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="bf16")
    parser.add_argument("--numerics", choices=("auto", "fast", "invariant"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each row, the best counts")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    given = parser.parse_args()
    precision, quantize = PRECISIONS[given.precision]
    config = EngineConfig(
        precision=precision,
        quantize=quantize,
        numerics=given.numerics,
        device=given.device,
        num_threads=given.threads,
        max_num_sequences=64,
        context_length=4096,
        kv_bytes=CACHE_BYTES,
    )
    started = time.perf_counter()
    engine, about = load_engine(given.model, config)
    loading_s = round(time.perf_counter() - started, 2)
    print(json.dumps({"loaded_s": loading_s, "numerics": about.numerics, "class": about.numerics_class}), flush=True)
    with torch.inference_mode():
        bench = Bench(engine)
        bench.warm_up()
        for line in measured(bench, tuple(given.rows), given.repeats):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
