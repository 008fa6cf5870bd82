"""What a cascade costs and how good it is, rule by rule, on the demo models: `make bench-cascade`.

    python tests/bench/cascade.py [--first DIR] [--then DIR] [--out DIR] [--docs docs] [--small]

Starts a mesh with both models, asks both all questions, trains the classifier and chooses thresholds on questions that
are not reported, then asks the reported ones through a cascade for each rule. Cost is money in the ledger.
"""

import argparse
import asyncio
import csv
import io
import json
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cascade_report
from cascade_asking import Answer, Questions, ask_all, questions
from cascade_sweep import PATTERNS, RULES, Pair, Point, Sweep, best, rules_of
from harness.clients import plain_openai
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI
from processes import Processes
from report import keep
from serin_cli.cascade_training import Example, Trained, train
from serin_worker.demo.model import SHAPES
from serin_worker.demo.paths import model_folder

DEFAULT_OUT = Path(__file__).resolve().parents[2] / "build" / "bench" / "cascade"
FIRST, THEN = "mini", "small"
THEN_PRICE = 1_000_000
"""Micro-units for a million tokens of the second model, prompt and answer alike: one unit."""
AIM = 0.985
"""Share of the second model's accuracy that thresholds are chosen for; 0.98 is what is wanted, on other questions."""
NUM_LEARN = 1500


def first_price() -> int:
    """In proportion to the multiplications of one token."""
    return round(THEN_PRICE * SHAPES[FIRST].multiplications_per_token / SHAPES[THEN].multiplications_per_token)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep."""
    options = _parser().parse_args(arguments)
    asked = questions(*((120, 12, 10) if options.small else (NUM_LEARN,)))
    with tempfile.TemporaryDirectory() as folder:
        mesh = RunningMesh(Path(folder) / "state", declaration(options.first, options.then))
        mesh.start()
        try:
            figures = asyncio.run(_measure(mesh, asked, options))
        finally:
            mesh.stop()
    keep(options.out / "results.json", figures)
    print(cascade_report.write(options.docs or options.out, figures).split("## Every threshold")[0])
    return 0


def declaration(first: Path, then: Path, cascades: Mapping[str, Any] | None = None) -> str:
    """A `serin.yaml` with both models at their prices, and these cascades; JSON is YAML."""

    def model(path: Path, price: int) -> dict[str, Any]:
        prices = {"input": price, "cached_input": price, "output": price}
        return {"path": str(path.resolve()), "precision": "float32", "numerics": "invariant", "price": prices}

    models = {FIRST: model(first, first_price()), THEN: model(then, THEN_PRICE)}
    return json.dumps({"models": models, "cascades": cascades or {}})


async def _measure(mesh: RunningMesh, asked: Questions, options: argparse.Namespace) -> dict[str, Any]:
    async with _as_project(mesh, "learning") as client:
        learned = await ask_all(client, FIRST, asked.learn)
        trained = train([Example(one.text, not one.is_right) for one in learned])
        tuning = Sweep(await _pairs(client, asked.tune), trained.classifier)
    workers = Processes({name: one.pid for name, one in mesh.members().items() if name.startswith("worker")})
    alone, answers = [], {}
    for model in (FIRST, THEN):
        workers.begin()
        async with _as_project(mesh, f"alone-{model}") as client:
            answers[model] = await ask_all(client, model, asked.test, logprobs=model == FIRST)
        cpu_s = sum(cost.cpu_s for cost in workers.costs().values())
        alone.append(_row(f"{model} alone", answers[model]) | {"project": f"alone-{model}", "cpu_s": cpu_s})
    sweep = Sweep(_paired(answers[FIRST], answers[THEN]), trained.classifier)
    chosen = {name: _choose(points) for name, points in tuning.curves().items()}
    mesh_file = options.out / "cascades.json"
    mesh_file.parent.mkdir(parents=True, exist_ok=True)
    cascades = {_name(name): _declared(point, trained) for name, point in chosen.items()}
    mesh_file.write_text(declaration(options.first, options.then, cascades), encoding="utf-8")
    mesh.serin("config", "apply", str(mesh_file))
    await _known(mesh, list(cascades))
    live = []
    for name, point in chosen.items():
        async with _as_project(mesh, _name(name)) as client:
            got = await ask_all(client, _name(name), asked.test)
        escalated = sum(":escalated" in one.route for one in got) / len(got)
        row = _row("mini, then small", got) | {"rule": name, "threshold": point.threshold, "escalated": escalated}
        live.append(row | {"project": _name(name), "tuned": point.plain()})
    money = _money(mesh)
    whole, right = money[f"alone-{THEN}"], alone[1]["right"]
    for row in (*alone, *live):
        row |= {
            "money": f"{money[row['project']]:.6f}",
            "cost": money[row["project"]] / whole,
            "accuracy": row["right"] / right,
        }
    return {
        "run": _run(asked, trained),
        "alone": alone,
        "live": live,
        "curves": {name: [one.plain() for one in points] for name, points in sweep.curves().items()},
        "oracle": sweep.oracle().plain(),
        "chance": [sweep.by_chance(share / 10).plain() for share in range(11)],
        "prices": _prices(alone, asked),
    }


def _run(asked: Questions, trained: Trained) -> dict[str, Any]:
    return {
        "num_learn": len(asked.learn),
        "num_tune": len(asked.tune),
        "num_test": len(asked.test),
        "auc": trained.auc,
        "aim": AIM,
        "classifier": trained.classifier.to_text(),
        "processor": _processor(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


async def _pairs(client: AsyncOpenAI, items: Sequence[Any]) -> list[Pair]:
    first = await ask_all(client, FIRST, items, logprobs=True)
    return _paired(first, await ask_all(client, THEN, items))


def _paired(first: Sequence[Answer], then: Sequence[Answer]) -> list[Pair]:
    """With what each costs by its price, as the ledger counts it."""
    share = first_price() / THEN_PRICE
    return [
        Pair(
            one,
            other,
            share * (one.prompt_tokens + one.completion_tokens),
            other.prompt_tokens + other.completion_tokens,
        )
        for one, other in zip(first, then, strict=True)
    ]


def _choose(points: Sequence[Point]) -> Point:
    """The cheapest that is good enough; where none is, the best there is."""
    return best(points, AIM) or max(points, key=lambda point: (point.accuracy, -point.cost))


def _declared(point: Point, trained: Trained) -> dict[str, Any]:
    """A cascade as `serin.yaml` has it."""
    rules = rules_of(point.rule, point.threshold, trained.classifier)
    declared: dict[str, Any] = {}
    if rules.mean_logprob_below is not None:
        declared["mean_logprob_below"] = rules.mean_logprob_below
    if rules.min_logprob_below is not None:
        declared["min_logprob_below"] = rules.min_logprob_below
    if rules.schema_fails:
        declared["schema_fails"] = True
    if rules.prompt_patterns:
        declared["prompt_matches"] = list(PATTERNS)
    if rules.classifier is not None:
        declared["classifier"] = {"weights": rules.classifier.to_text(), "above": rules.classifier_above}
    return {"first": FIRST, "then": THEN, "escalate_when": declared}


def _name(rule: str) -> str:
    """A cascade's name."""
    return f"by-{list(RULES).index(rule)}"


def _row(asked: str, answers: Sequence[Answer]) -> dict[str, Any]:
    kinds = dict.fromkeys(one.kind for one in answers)
    by_kind = {kind: [one.is_right for one in answers if one.kind == kind] for kind in kinds}
    return {
        "asked": asked,
        "right": sum(one.is_right for one in answers) / len(answers),
        "by_kind": {kind: sum(right) / len(right) for kind, right in by_kind.items()},
        "seconds": sum(one.seconds for one in answers) / len(answers),
        "prompt_tokens": sum(one.prompt_tokens for one in answers),
        "completion_tokens": sum(one.completion_tokens for one in answers),
    }


@asynccontextmanager
async def _as_project(mesh: RunningMesh, project: str) -> AsyncIterator[AsyncOpenAI]:
    """A client whose key asks nothing else: its money in the ledger is that of what is asked here."""
    printed = mesh.serin("key", "create", "--role", "app", "--project", project)
    key = next(word for word in printed.split() if word.startswith("sk-serin-"))
    async with plain_openai(f"{mesh.rest}/v1", key, timeout_s=300) as client:
        yield client


async def _known(mesh: RunningMesh, names: Sequence[str]) -> None:
    """Wait until the gateway has heard of the cascades."""
    async with plain_openai(f"{mesh.rest}/v1", mesh.key) as client, asyncio.timeout(30):
        while not set(names) <= {one.id async for one in client.models.list()}:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def _money(mesh: RunningMesh) -> dict[str, float]:
    """Units of the currency by project, from the ledger's sums."""
    rows = csv.DictReader(io.StringIO(mesh.serin("usage", "--by", "project", "--csv")))
    return {row["project"]: float(row["cost"]) for row in rows}


def _prices(alone: Sequence[Mapping[str, Any]], asked: Questions) -> str:
    """How prices were made, and whether processors agree."""
    shapes = {name: SHAPES[name].multiplications_per_token for name in (FIRST, THEN)}
    tokens = [row["prompt_tokens"] + row["completion_tokens"] for row in alone]
    cpu = [row["cpu_s"] for row in alone]
    return (
        f"Prices are in proportion to the multiply-adds of one token in all matrices: {shapes[THEN]:,} for small v2, "
        f"{shapes[FIRST]:,} for mini v1, {first_price() / THEN_PRICE:.1%} of it; attention, which grows with the "
        f"context (here about 100 tokens), is left out. {THEN_PRICE:,} and {first_price():,} micro-units for a million "
        "tokens, prompt and answer alike; reused tokens of a prompt cost the same, so that figures do not depend on "
        "what a cache happened to hold.\n\n"
        f"Processors of the workers took {cpu[0]:.1f} s for mini v1's {tokens[0]:,} tokens and {cpu[1]:.1f} s for "
        f"small v2's {tokens[1]:,} ({1e6 * cpu[0] / tokens[0]:,.0f} and {1e6 * cpu[1] / tokens[1]:,.0f} µs a token, "
        f"{(cpu[0] / tokens[0]) / (cpu[1] / tokens[1]):.0%}): models as small as these spend most of their time in the "
        "engine around them, which is the same for both, so the processor's ratio is no measure of a real pair's. "
        "Other work ran on the machine."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cascade.py", description="Cost and quality of cascades, rule by rule.")
    parser.add_argument("--first", type=Path, default=model_folder("mini", "v1"), help="folder (default: mini v1)")
    parser.add_argument("--then", type=Path, default=model_folder("small", "v2"), help="folder (default: small v2)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where results.json goes")
    parser.add_argument("--docs", type=Path, help="folder for cascades.md and its plot (default: as --out)")
    parser.add_argument("--small", action="store_true", help="only try the whole path: a tenth of the questions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
