"""A long prompt in chunks: what each takes beside the operations counted for it, and what memory grows by."""

import resource
from pathlib import Path
from typing import Any

import numpy
import roofline
import torch
from report import show
from serving_engine import DrivenEngine
from serving_promise import at_most, kept, show_promises
from serving_scale import Scale

GROWTH_GOAL = 1.10
"""Over what a straight line through the first half says of the last quarter: timing is no finer."""
MEMORY_GOAL = 1.05
STEP = 512
"""Tokens in a step."""


@torch.inference_mode()
def measure_context(model: Path, scale: Scale) -> dict[str, Any]:
    """One prompt of all the context; seconds for each chunk."""
    driven = DrivenEngine(
        model, "bf16", scale.num_threads, context_length=scale.context + 16, max_num_sequences=1,
        max_num_batched_tokens=min(scale.chunk, STEP), num_blocks=-(-(scale.context + 16) // 16),
    )  # fmt: skip
    driven.add(driven.prompt(scale.chunk), 1)
    driven.drain()
    driven.add(driven.prompt(scale.context), 1)
    seconds, peaks = [], []
    for _ in range(scale.context // scale.chunk):
        seconds.append(sum(driven.step()[0] for _ in range(-(-scale.chunk // STEP))))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    driven.drain()
    return _judge(model, scale, driven.about.num_blocks * driven.about.block_bytes, seconds, peaks)


def _judge(model: Path, scale: Scale, kv_bytes: int, seconds: list[float], peaks: list[float]) -> dict[str, Any]:
    starts = [scale.chunk * number for number in range(len(seconds))]
    shape = roofline.shape_of(model)
    macs = [scale.chunk * (shape.weights + (start + scale.chunk / 2) * shape.attention) for start in starts]
    half, quarter = max(2, len(starts) // 2), -(-len(starts) * 3 // 4)
    slope, base = numpy.polyfit(starts[:half], seconds[:half], 1)
    growth = sum(seconds[quarter:]) / float(sum(base + slope * start for start in starts[quarter:]))
    promises = [
        at_most("time of the last quarter over a line through the first half", growth, GROWTH_GOAL),
        at_most("peak memory at the end over that after the first chunk", peaks[-1] / peaks[0], MEMORY_GOAL),
    ]
    shown = sorted({0, len(starts) // 8, len(starts) // 4, half - 1, quarter - 1, len(starts) - 1})
    per_mac = [took / count for took, count in zip(seconds, macs, strict=True)]
    rows = [
        (
            f"{starts[at] + scale.chunk:,}",
            f"{seconds[at]:.2f}",
            f"{macs[at] / 1e12:.2f}",
            f"{seconds[at] / seconds[0]:.2f}",
            f"{macs[at] / macs[0]:.2f}",
            f"{per_mac[at] / per_mac[0]:.2f}",
            peaks[at],
        )
        for at in shown
    ]
    columns = (
        "context", "seconds a chunk", "T multiply-adds", "time, times first", "operations, times first",
        "time an operation, times first", "peak MiB",
    )  # fmt: skip
    show(f"a prompt of {scale.context:,} tokens, bf16, chunks of {scale.chunk}", columns, rows)
    show_promises(
        "long context", promises, (f"in all {sum(seconds):.0f} s; KV cache {kv_bytes / 1024**2:,.0f} MiB of the peak",)
    )
    return kept(promises, seconds=seconds, multiply_adds=macs, peak_mib=peaks, kv_bytes=kv_bytes)
