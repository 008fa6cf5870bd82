"""What `numerics: invariant` costs beside `fast`: both engines in one process, row by row in turns."""

import statistics
from pathlib import Path
from typing import Any

import torch
from report import show
from serving_engine import DrivenEngine
from serving_scale import Scale

PRECISIONS = ("bf16", "int8", "fp32")
BATCHES = (1, 4, 16)
STEPS = 8
DEFAULT_BELOW = 3.0
"""Percent that it may cost to be the default."""


@torch.inference_mode()
def measure_numerics(model: Path, scale: Scale, precisions: tuple[str, ...] = PRECISIONS) -> dict[str, Any]:
    """Percent of time that `invariant` takes more, for each precision and row; medians over rounds."""
    found = {precision: _percent(model, precision, scale) for precision in precisions}
    rows = []
    for precision, percent in found.items():
        mean = statistics.mean(percent.values())
        verdict = "may be the default" if mean < DEFAULT_BELOW else "may not"
        rows.append((precision, *(f"{cost:+.1f}" for cost in percent.values()), f"{mean:+.1f}", verdict))
    columns = ("precision", f"prompt of {scale.prompt}", *(f"decode of {size}" for size in BATCHES), "mean")
    show("numerics: invariant, percent slower than fast", (*columns, f"below {DEFAULT_BELOW:.0f}"), rows)
    return found


def _percent(model: Path, precision: str, scale: Scale) -> dict[str, float]:
    sides = {
        numerics: DrivenEngine(
            model, precision, scale.num_threads, numerics=numerics, context_length=2 * scale.prompt,
            kv_bytes=scale.kv_bytes,
        )
        for numerics in ("fast", "invariant")
    }  # fmt: skip
    percent = {}
    for size in (0, *BATCHES):
        ratios = []
        for number in range(2 * scale.rounds + 1):
            order = list(sides) if number % 2 else list(reversed(sides))
            seconds = {name: _seconds(sides[name], size, scale) for name in order}
            if number:  # the first one warms up
                ratios.append(seconds["invariant"] / seconds["fast"])
        percent[f"decode {size}" if size else "prefill"] = 100 * (statistics.median(ratios) - 1)
    return percent


def _seconds(driven: DrivenEngine, size: int, scale: Scale) -> float:
    """Of one prompt, or of some steps of so many decodes."""
    if not size:
        return driven.first_token_s(driven.add(driven.prompt(scale.prompt), 1))
    names = [driven.add(driven.prompt(scale.prompt // 4), STEPS + 8) for _ in range(size)]
    driven.begin(names)
    seconds = sum(driven.step()[0] for _ in range(STEPS))
    driven.abort(names)
    return seconds
