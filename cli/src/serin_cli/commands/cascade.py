"""`serin cascade`: make the classifier of a cascade."""

import argparse
import json
from pathlib import Path
from typing import Any

from serin_cli.cascade_training import Example, Trained, train
from serin_cli.errors import CliError, UsageProblem

DESCRIPTION = """\
Train a classifier of prompts for a cascade. EXAMPLES is a file of lines {"text": …, "escalate": true|false}: a prompt's
last turn, and whether the larger model should answer it, say because the smaller one's answer was wrong. What is
printed goes into serin.yaml, under `escalate_when:` of the cascade.
"""
MAX_EXAMPLES = 200_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the action and its flags."""
    actions = parser.add_subparsers(dest="action", metavar="train", required=True)
    action = actions.add_parser("train", help="make a classifier from examples, and say how good it is")
    action.add_argument("examples", metavar="EXAMPLES", type=Path, help="lines of JSON")
    action.add_argument("--above", type=_probability, default=0.5, help="the threshold to write (default 0.5)")
    action.add_argument("--seed", type=int, default=0, help="of the order in which examples are learned (default 0)")


def run(arguments: argparse.Namespace) -> int:
    """Train and print."""
    examples = read_examples(arguments.examples)
    try:
        trained = train(examples, arguments.seed)
    except ValueError as error:
        raise UsageProblem(f"{arguments.examples}: {error}") from error
    print("\n".join(report(trained, arguments.above)))
    return 0


def read_examples(path: Path) -> list[Example]:
    """Examples of a file.

    Raises:
        UsageProblem: a line is none; with file and line.
        CliError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path}: cannot be read: {error}") from error
    if len(lines) > MAX_EXAMPLES:
        raise UsageProblem(f"{path}: {len(lines)} lines; accepted: at most {MAX_EXAMPLES}")
    return [_example(f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]


def report(trained: Trained, above: float) -> list[str]:
    """Figures as comments, then the part of a serin.yaml."""
    lines = [
        f"# learned from {trained.num_learned} examples, measured on {trained.num_held} others: AUC {trained.auc:.3f}",
        "# above   escalated   of those that should be",
    ]
    lines += [f"#  {one.above:.2f}     {one.escalated:6.1%}     {one.caught:6.1%}" for one in trained.points]
    return [*lines, "classifier:", f"  weights: {trained.classifier.to_text()}", f"  above: {above:g}"]


def _example(where: str, line: str) -> Example:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise UsageProblem(f'{where}: no JSON: {error}; accepted: {{"text": …, "escalate": true|false}}') from error
    if not isinstance(found, dict) or set(found) != {"text", "escalate"}:
        raise UsageProblem(f'{where}: accepted: an object with exactly "text" and "escalate"')
    text, escalate = found["text"], found["escalate"]
    if not isinstance(text, str) or not isinstance(escalate, bool):
        raise UsageProblem(f"{where}: accepted: text as text, escalate as true or false")
    return Example(text, escalate)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: a number 0..1")
    return value
