"""What a machine allows a decoder-only model: tokens a second by bandwidth and by matrix rate, both measured here.

A row's time is at least that of reading each weight, and each key and value, once a step, and at least that of its
multiplications. Bytes and operations are counted from the configuration; nothing overlaps worse than fully.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

READ_BYTES = 1 << 30
MATRIX = 2048


@dataclass(frozen=True)
class Machine:
    """Bytes read a second, and multiply-additions a second in a precision."""

    bytes_s: float
    macs_s: float


@dataclass(frozen=True)
class Shape:
    """What a model's configuration says about its work."""

    weights: int
    """Numbers in linear layers that every token goes through, but for the output layer."""
    head: int
    """Numbers of the output layer."""
    kv_numbers: int
    """Numbers that a token leaves in the cache."""
    attention: int
    """Multiply-additions of a token for each position it sees."""


def shape_of(folder: Path) -> Shape:
    """Read from a Llama- or Qwen-like ``config.json``."""
    return shape_of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """The same from what is in it."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads", heads)
    projections = hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * config["intermediate_size"]
    return Shape(
        weights=layers * projections,
        head=hidden * config["vocab_size"],
        kv_numbers=2 * layers * kv_heads * head_dim,
        attention=2 * layers * heads * head_dim,
    )


def measured(precision: str, num_threads: int = 2) -> Machine:
    """This machine's, at its best of some tries."""
    torch.set_num_threads(num_threads)
    numbers = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    read_s = _best(lambda: numbers.sum(), 5)
    if precision == "int8":
        rows, columns = (torch.ones((MATRIX, MATRIX), dtype=torch.int8) for _ in range(2))
        multiply_s = _best(lambda: torch._int_mm(rows, columns), 5)
    else:
        rows, columns = (torch.ones((MATRIX, MATRIX), dtype=torch.bfloat16) for _ in range(2))
        multiply_s = _best(lambda: rows @ columns, 5)
    return Machine(READ_BYTES / read_s, MATRIX**3 / multiply_s)


def decode(machine: Machine, shape: Shape, size: int, context: int, itemsize: int) -> float:
    """Tokens a second at most, of steps for ``size`` sequences; the cache is in 2 bytes a number."""
    read = (shape.weights + shape.head) * itemsize + size * context * shape.kv_numbers * 2
    macs = size * (shape.weights + shape.head + context * shape.attention)
    return size / max(read / machine.bytes_s, macs / machine.macs_s)


def prefill(machine: Machine, shape: Shape, num_tokens: int, itemsize: int) -> float:
    """Tokens a second at most, of one prompt."""
    read = (shape.weights + shape.head) * itemsize
    macs = num_tokens * (shape.weights + num_tokens / 2 * shape.attention) + shape.head
    return num_tokens / max(read / machine.bytes_s, macs / machine.macs_s)


def _best(work: Callable[[], object], tries: int) -> float:
    work()
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
