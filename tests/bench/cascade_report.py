"""Tables and a plot of what cascades cost and how good they are. Knows points, nothing about how they came about."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 320, 46, 52
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e0a100", "#00838f", "#a0522d", "#5b5b5b")
TITLE = "mini v1, then small v2: accuracy against cost, small v2 alone = 100 %"
BAR_ACCURACY, BAR_COST = 0.98, 0.60

HEAD = """# Cascades of the demo models: what each rule costs and how good it is

Written by `make bench-cascade`. A real mesh: `serin up` with a process for every service, mini v1 and small v2 on real
workers, {num_test} held-out questions asked through OpenAI's SDK, greedy, float32. {processor}, {date}.

"""


def write(folder: Path, figures: Mapping[str, Any]) -> str:
    """Write cascades.md and cascades/curves.svg; returns the page."""
    (folder / "cascades").mkdir(parents=True, exist_ok=True)
    (folder / "cascades" / "curves.svg").write_text(chart(figures), encoding="utf-8")
    page = HEAD.format(**figures["run"]) + "\n\n".join(_sections(figures)) + "\n"
    (folder / "cascades.md").write_text(page, encoding="utf-8")
    return page


def chart(figures: Mapping[str, Any]) -> str:
    """Accuracy against cost, both as shares of the second model's alone, on the test questions."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = figures["curves"]
    low = min(0.6, *(point["accuracy"] for points in curves.values() for point in points))
    low = int(low * 20) / 20

    def x(cost: float) -> float:
        return LEFT + min(cost, 1.3) / 1.3 * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (accuracy - low) / (1.02 - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="15">{TITLE}</text>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "cost", "middle"),
        f'<rect x="{x(0):.1f}" y="{y(1.02):.1f}" width="{x(BAR_COST) - x(0):.1f}" '
        f'height="{y(BAR_ACCURACY) - y(1.02):.1f}" fill="#e8f4e8"/>',
    ]
    for step in range(0, 14, 2):
        parts += [
            _line(x(step / 10), y(low), x(step / 10), y(1.02)),
            _text(x(step / 10), HEIGHT - 34, f"{step * 10} %", "middle"),
        ]
    step = low
    while step <= 1.001:
        parts += [_line(x(0), y(step), x(1.3), y(step)), _text(LEFT - 8, y(step) + 4, f"{step * 100:.0f} %", "end")]
        step += 0.05
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        along = " ".join(f"{x(p['cost']):.1f},{y(p['accuracy']):.1f}" for p in sorted(points, key=lambda p: p["cost"]))
        parts.append(f'<polyline points="{along}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_dot(x(p["cost"]), y(p["accuracy"]), colour, 3) for p in points]
        parts += _legend(number, name, colour)
    for at, live in enumerate(figures["live"]):
        colour = COLOURS[list(curves).index(live["rule"]) % len(COLOURS)]
        parts.append(_dot(x(live["cost"]), y(live["accuracy"]), colour, 7))
        if not at:
            parts += _legend(len(curves), "large dots: measured through the cascade", "#000000")
    chance = figures["chance"]
    along = " ".join(f"{x(p['cost']):.1f},{y(p['accuracy']):.1f}" for p in chance)
    parts.append(f'<polyline points="{along}" fill="none" stroke="#999999" stroke-dasharray="4 4"/>')
    parts += _legend(len(curves) + 1, "dashed: escalated by chance", "#999999")
    oracle = figures["oracle"]
    parts.append(_text(x(oracle["cost"]), y(oracle["accuracy"]) + 4, "✕", "middle"))
    parts += _legend(len(curves) + 2, "✕: only what the first gets wrong", "#000000")
    parts += _legend(len(curves) + 3, "green: at least 98 % for at most 60 %", "#2e8b57")
    return "\n".join((*parts, "</svg>", ""))


def _sections(figures: Mapping[str, Any]) -> list[str]:
    alone, live = figures["alone"], figures["live"]
    reached = [one for one in live if one["accuracy"] >= BAR_ACCURACY and one["cost"] <= BAR_COST]
    first = (
        f"**{len(reached)} of {len(live)} rules reach at least 98 % of small v2's accuracy for at most 60 % of its "
        "cost**; the cheapest of them: "
        + ", ".join(
            f"`{one['rule']}` with {one['accuracy']:.1%} for {one['cost']:.1%}"
            for one in sorted(reached, key=lambda one: float(one["cost"]))[:1]
        )
        + "."
        if reached
        else "**No rule reaches 98 % of small v2's accuracy for at most 60 % of its cost.**"
    )
    return [
        first,
        "![accuracy against cost](cascades/curves.svg)",
        "## Measured through the cascade",
        _live_table(alone, live),
        "*Cost* is money in the ledger, of both models, of a key that asked nothing else. Thresholds were chosen on "
        f"{figures['run']['num_tune']} other held-out questions (the cheapest that keeps {figures['run']['aim']:.1%} "
        "of small v2's accuracy there), the classifier learned from "
        f"{figures['run']['num_learn']} questions of the training side (AUC {figures['run']['auc']:.3f} on a fifth of "
        "them, held apart); the questions of this table were asked once, after that.",
        "## By kind",
        _kinds_table(alone, live),
        "## What a token costs",
        figures["prices"],
        "## Every threshold",
        "Of the test questions, computed from both models' answers to all of them; nothing was chosen here.",
        _curves_table(figures["curves"]),
    ]


def _live_table(alone: Sequence[Mapping[str, Any]], live: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| asked | rule | right | of small v2's | escalated | cost | of small v2's | seconds an answer |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in [*alone, *live]:
        threshold = "" if one.get("threshold") is None else f" {one['threshold']:.4g}"
        rule = f"`{one['rule']}`{threshold}" if one.get("rule") else ""
        is_good = one.get("rule") and one["accuracy"] >= BAR_ACCURACY and one["cost"] <= BAR_COST
        mark = "**" if is_good else ""
        escalated = f"{one['escalated']:.1%}" if "escalated" in one else ""
        rows.append(
            f"| {one['asked']} | {rule} | {one['right']:.1%} | {mark}{one['accuracy']:.1%}{mark} | {escalated} "
            f"| {one['money']} | {mark}{one['cost']:.1%}{mark} | {one['seconds']:.2f} |"
        )
    return "\n".join(rows)


def _kinds_table(alone: Sequence[Mapping[str, Any]], live: Sequence[Mapping[str, Any]]) -> str:
    everybody = [*alone, *live]
    kinds = list(everybody[0]["by_kind"])
    names = [one.get("rule") or one["asked"] for one in everybody]
    rows = ["| | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for name, one in zip(names, everybody, strict=True):
        rows.append(f"| {name} | " + " | ".join(f"{one['by_kind'][kind]:.0%}" for kind in kinds) + " |")
    return "\n".join(rows)


def _curves_table(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = ["| rule | threshold | of small v2's accuracy | escalated | of its cost |", "|---|---:|---:|---:|---:|"]
    for name, points in curves.items():
        for point in points:
            threshold = "" if point["threshold"] is None else f"{point['threshold']:.4g}"
            rows.append(
                f"| `{name}` | {threshold} | {point['accuracy']:.1%} | {point['escalated']:.1%} | {point['cost']:.1%} |"
            )
    return "\n".join(rows)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _dot(x: float, y: float, colour: str, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def _legend(number: int, name: str, colour: str) -> list[str]:
    height = TOP + 14 + number * 20
    return [
        f'<rect x="{WIDTH - RIGHT + 16}" y="{height - 9}" width="12" height="4" fill="{colour}"/>',
        _text(WIDTH - RIGHT + 34, height - 3, name, "start"),
    ]
