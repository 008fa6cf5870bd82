"""The engine on a GPU beside what the card allows, on random weights of published shapes.

    python tests/bench/gpu.py [--only nano-0.6b ttft-8b] [--seconds 60] [--out FILE]

| row | work |
|---|---|
| nano-0.6b, nano-14b | 256 requests, 100 to 1,024 tokens in and out (seed 0): 133,966 out; Qwen3 shapes |
| llama-8b, -fp8, -int8 | 3,000 requests, 1,000 tokens in and out, or as far as the time goes; Llama-3.1-8B |
| prompts-14b | 500 requests of 2,000 tokens in and 100 out, all queued: tokens in and out a second |
| ttft-8b, -fp8, -int8 | one such request at a time, the Llama-3.1-8B shape: time to its first token |

Beside each row: the tokens a second of its decode steps, and what share that is of the roofline: for the very steps
that were taken, the time to read each weight and each key and value once, or to do the multiplications, whichever is
longer, at the copy bandwidth and matrix rate measured in the same run. The engine runs in this process.
"""

import argparse
import gc
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from report import keep, show
from roofline import Machine, Shape, shape_of_config
from serin_worker.attention import interface
from serin_worker.batch import StepPlan
from serin_worker.config import EngineConfig, Quantization
from serin_worker.engine import Engine, Runner
from serin_worker.flight import TokensAhead
from serin_worker.model.causal_lm import CausalModel
from serin_worker.outputs import Delta
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.runner import StepLogits
from serin_worker.startup import run_model
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

DEFAULT_OUT = Path("build/bench/gpu.json")
TOKEN_IDS = 10_000
NANO_REQUESTS, NANO_LOW, NANO_HIGH = 256, 100, 1024
LLAMA_TOKENS, LLAMA_REQUESTS = 1_000, 3_000
TTFT_PROMPT, TTFT_OUTPUT, TTFT_ROUNDS, PROMPT_REQUESTS = 2_000, 100, 10, 500
MATRIX, COPY_BYTES = 8192, 1 << 32
ITEM_BYTES: dict[Quantization, tuple[int, int]] = {"none": (2, 2), "fp8": (1, 2), "int8": (1, 1)}
"""Bytes of a weight of the layers, and of the output layer."""
AT_ONCE = 256
TINY_KV_BYTES = 400_000_000


def _qwen3(**sizes: Any) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151_936, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, eos_token_id=2, **sizes,
    )  # fmt: skip


def _llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=131_072, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5}, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip


def _tiny() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=TOKEN_IDS + 2, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=40_960, eos_token_id=2,
    )  # fmt: skip


SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "0.6b": lambda: _qwen3(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, tie_word_embeddings=True
    ),
    "14b": lambda: _qwen3(
        hidden_size=5120, intermediate_size=17_408, num_hidden_layers=40, num_attention_heads=40,
        tie_word_embeddings=False,
    ),
    "8b": _llama,
    "tiny": _tiny,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of the table: the shape it runs on, how, and its work."""

    name: str
    shape: str
    quantize: Quantization
    work: Callable[["Bench", float], dict[str, Any]]


@dataclass(slots=True)
class Decodes:
    """Steps of decodes alone: seconds they took, seconds they would take at the roofline, and tokens they made."""

    seconds: float = 0.0
    at_roofline: float = 0.0
    tokens: int = 0


@dataclass
class Watched:
    """A runner that remembers which steps were launched, for who times them."""

    runner: Runner
    launched: list[StepPlan] = field(default_factory=list)

    @property
    def num_moves(self) -> int:
        """The runner's."""
        return self.runner.num_moves

    def run(self, plan: StepPlan, ahead: TokensAhead | None = None) -> StepLogits:
        """The runner's."""
        self.launched.append(plan)
        return self.runner.run(plan, ahead)


class Bench:
    """Work over one engine, on one machine."""

    def __init__(self, engine: Engine, machine: Machine, shape: Shape, quantize: Quantization) -> None:
        self._watched = Watched(engine._runner)
        engine._runner = self._watched
        self._engine, self._machine, self._shape = engine, machine, shape
        self._layers, self._head = ITEM_BYTES[quantize]
        self._random = random.Random(0)
        self._number = 0
        self.decodes = Decodes()

    def add(self, prompt: list[int], num_output: int, temperature: float = 0.0) -> None:
        """Queue one request."""
        self._number += 1
        stopping = Stopping(max_tokens=num_output, ignore_eos=True)
        sampling = Sampling(temperature=temperature, seed=self._number)
        self._engine.add(GenerationRequest(str(self._number), prompt, sampling, stopping))

    def add_random(self, num_prompt: int, num_output: int) -> None:
        """Queue one greedy request of random ids."""
        self.add([self._random.randrange(TOKEN_IDS) for _ in range(num_prompt)], num_output)

    def abort_all(self) -> None:
        """Leave nothing behind for the next row."""
        for number in range(self._number + 1):
            self._engine.abort(str(number))

    def step(self) -> int:
        """One step; tokens it made."""
        began = time.perf_counter()
        outputs = self._engine.step()
        seconds = time.perf_counter() - began
        tokens = sum(len(output.token_ids) for _, output in outputs if isinstance(output, Delta))
        launched = self._watched.launched
        ended = launched[: len(launched) - self._engine.has_step_on_its_way]
        del launched[: len(ended)]
        if ended and all(plan.is_decode for plan in ended):
            self.decodes.seconds += seconds
            self.decodes.at_roofline += sum(map(self._roofline, ended))
            self.decodes.tokens += tokens
        return tokens

    def drain(self, until: float = float("inf")) -> int:
        """Steps until nothing is left, or so late; tokens they made."""
        made = 0
        while self._engine.has_work and time.perf_counter() < until:
            made += self.step()
        return made

    def _roofline(self, plan: StepPlan) -> float:
        contexts = sum(work.start + 1 for work in plan.work)
        read = (
            self._shape.weights * self._layers + self._shape.head * self._head + contexts * self._shape.kv_numbers * 2
        )
        products = len(plan.work) * (self._shape.weights + self._shape.head) + contexts * self._shape.attention
        return float(max(read / self._machine.bytes_s, products / self._machine.macs_s))


def nano_requests() -> tuple[list[list[int]], list[int]]:
    """Prompts and lengths of outputs, drawn as nano-vllm's own benchmark draws them."""
    draw = random.Random(0)
    lengths = range(NANO_REQUESTS)
    prompts = [[draw.randint(0, TOKEN_IDS) for _ in range(draw.randint(NANO_LOW, NANO_HIGH))] for _ in lengths]
    return prompts, [draw.randint(NANO_LOW, NANO_HIGH) for _ in lengths]


def nano(bench: Bench, seconds: float) -> dict[str, Any]:
    """Everything at once, to the end."""
    prompts, outputs = nano_requests()
    for prompt, num_output in zip(prompts, outputs, strict=True):
        bench.add(prompt, num_output, temperature=0.6)
    began = time.perf_counter()
    made = bench.drain(began + seconds)
    return _rate(made, sum(outputs), time.perf_counter() - began)


def thousands(bench: Bench, seconds: float) -> dict[str, Any]:
    """1,000 tokens in and 1,000 out, all queued; what was made until the time was over counts."""
    for _ in range(LLAMA_REQUESTS):
        bench.add_random(LLAMA_TOKENS, LLAMA_TOKENS)
    began = time.perf_counter()
    made = bench.drain(began + seconds)
    return _rate(made, LLAMA_REQUESTS * LLAMA_TOKENS, time.perf_counter() - began)


def prompts(bench: Bench, seconds: float) -> dict[str, Any]:
    """2,000 tokens in and 100 out, all queued: tokens in and out count, of requests that ended."""
    for _ in range(PROMPT_REQUESTS):
        bench.add_random(TTFT_PROMPT, TTFT_OUTPUT)
    began = time.perf_counter()
    made = bench.drain(began + seconds)
    took = time.perf_counter() - began
    share = made / (PROMPT_REQUESTS * TTFT_OUTPUT)
    return {"total_tok_s": share * PROMPT_REQUESTS * (TTFT_PROMPT + TTFT_OUTPUT) / took, "share": share}


def first_token(bench: Bench, seconds: float) -> dict[str, Any]:
    """One request at a time: the median of the times to the first token."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < TTFT_ROUNDS and time.perf_counter() < until:
        bench.add_random(TTFT_PROMPT, TTFT_OUTPUT)
        began = time.perf_counter()
        while not bench.step():
            pass
        took.append(time.perf_counter() - began)
        bench.drain()
    return {"ttft_ms": statistics.median(took) * 1000}


def _rate(made: int, wanted: int, seconds: float) -> dict[str, Any]:
    return {"tok_s": made / seconds, "share": made / wanted, "seconds": seconds}


ROWS = (
    Row("nano-0.6b", "0.6b", "none", nano),
    Row("nano-14b", "14b", "none", nano),
    Row("prompts-14b", "14b", "none", prompts),
    Row("llama-8b", "8b", "none", thousands),
    Row("ttft-8b", "8b", "none", first_token),
    Row("llama-8b-fp8", "8b", "fp8", thousands),
    Row("ttft-8b-fp8", "8b", "fp8", first_token),
    Row("llama-8b-int8", "8b", "int8", thousands),
    Row("ttft-8b-int8", "8b", "int8", first_token),
)


def random_model(shape: str, device: torch.device) -> CausalModel:
    """A model of that shape whose weights are drawn where they stay; bfloat16."""
    torch.manual_seed(0)
    interface.register()
    with torch.device(device):
        return CausalModel(
            AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                SHAPES[shape](), dtype=torch.bfloat16, attn_implementation=interface.NAME
            ).eval()
        )


def measured_machine(device: torch.device, size: int = MATRIX, copied: int = COPY_BYTES) -> Machine:
    """What the card copies (bytes read and written) and multiplies in bfloat16, each at its best."""
    source = torch.ones(copied // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rows = torch.randn((size, size), device=device).bfloat16()
    copy_s = _best(device, lambda: target.copy_(source))
    multiply_s = _best(device, lambda: rows @ rows)
    return Machine(copied / copy_s, size**3 / multiply_s)


def _best(device: torch.device, work: Callable[[], object], tries: int = 10) -> float:
    best = float("inf")
    for _ in range(tries):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(rows: list[Row], device: torch.device, seconds: float, is_tiny: bool) -> Iterator[dict[str, Any]]:
    """Each row once, models one after the other."""
    machine = measured_machine(device, 256 if is_tiny else MATRIX, 1 << 22 if is_tiny else COPY_BYTES)
    yield {"row": "machine", "copy_gb_s": machine.bytes_s / 1e9, "matrix_tflop_s": 2 * machine.macs_s / 1e12}
    for (shape, quantize), group in itertools.groupby(rows, lambda row: (row.shape, row.quantize)):
        began = time.perf_counter()
        model = random_model("tiny" if is_tiny else shape, device)
        counted = shape_of_config(model.module.config.to_dict())
        config = EngineConfig(
            precision="bfloat16",
            quantize=quantize,
            numerics="fast",
            device=str(device),
            max_num_sequences=AT_ONCE,
            max_num_waiting=LLAMA_REQUESTS,
            kv_bytes=TINY_KV_BYTES if is_tiny else None,
        )
        engine = run_model(model, config, quantize).engine
        ready_s = time.perf_counter() - began
        for row in group:
            bench = Bench(engine, machine, counted, quantize)
            result = row.work(bench, seconds)
            bench.abort_all()
            decodes = bench.decodes
            yield {
                "row": row.name, **result, "ready_s": ready_s,
                "decode_tok_s": decodes.tokens / decodes.seconds if decodes.seconds else 0.0,
                "of_roofline": decodes.at_roofline / decodes.seconds if decodes.seconds else 0.0,
                "peak_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0,
            }  # fmt: skip
        del engine, model, bench
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> int:
    """Print a line for each row as it is done, and a table in the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="some of the rows")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time for a row (default: 60)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the benchmark itself")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is here; --device cpu --tiny tries the benchmark itself", file=sys.stderr)
        return 2
    results = []
    for result in measured([row for row in ROWS if row.name in given.only], device, given.seconds, given.tiny):
        results.append(result)
        print(json.dumps({name: round(x, 3) if isinstance(x, float) else x for name, x in result.items()}), flush=True)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    columns = ("row", "tok_s", "total_tok_s", "ttft_ms", "share", "decode_tok_s", "of_roofline", "peak_gb")
    show(
        f"the engine on {card}, torch {torch.__version__}", columns,
        [[result.get(column, "") for column in columns] for result in results if result["row"] != "machine"],
        [f"copies {results[0]['copy_gb_s']:,.0f} GB/s, multiplies {results[0]['matrix_tflop_s']:,.0f} TFLOP/s"],
    )  # fmt: skip
    keep(given.out, {"card": card, "torch": torch.__version__, "rows": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
