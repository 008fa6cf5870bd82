"""Curves of shares as SVG: how many of all lie at or below a value. Knows nothing about what they are shares of."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 290, 50, 50
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e0a100", "#5b5b5b", "#00838f", "#a0522d")


@dataclass(frozen=True)
class Curve:
    """Its name and its values, ascending, above 0."""

    name: str
    values: Sequence[float]


def chart(title: str, axis: str, curves: Sequence[Curve], scale: float = 1.0) -> str:
    """All curves on a logarithmic axis; values are multiplied by ``scale``."""
    values = [value * scale for curve in curves for value in curve.values] or [1.0]
    low, high = math.floor(math.log10(min(values)) * 2) / 2, math.ceil(math.log10(max(values)) * 2) / 2
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / span * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="15">{html.escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{html.escape(axis)}</text>',
    ]
    for tick in _ticks(low, high):
        parts.append(_line(x(tick), y(0), x(tick), y(1)))
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - 32}" text-anchor="middle">{tick:g}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(LEFT, y(share), WIDTH - RIGHT, y(share)))
        parts.append(f'<text x="{LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share * 100:.0f} %</text>')
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        count = len(curve.values)
        points = " ".join(
            f"{x(value * scale):.1f},{y((place + 1) / count):.1f}"
            for place, value in enumerate(curve.values)
            if place % max(1, count // 200) == 0 or place == count - 1
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        height = TOP + 14 + number * 20
        parts.append(f'<rect x="{WIDTH - RIGHT + 16}" y="{height - 9}" width="12" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 34}" y="{height - 3}">{html.escape(curve.name)}</text>')
    return "\n".join((*parts, "</svg>", ""))


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _ticks(low: float, high: float) -> list[float]:
    """1, 3, 10, 30, … within the axis."""
    exponents = range(math.floor(low) - 1, math.ceil(high) + 1)
    ticks = [10.0**exponent * step for exponent in exponents for step in (1.0, 3.0)]
    return [tick for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
