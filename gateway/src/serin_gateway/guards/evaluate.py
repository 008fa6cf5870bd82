"""`python -m serin_gateway.guards.evaluate FOLDER`: how well detectors find what a corpus says is there.

A folder holds ``pii.held_out.jsonl``, ``secrets.…``, ``unicode.…`` and ``injection.…`` (and ``….tuning.jsonl``).
Personal data and secrets are judged by what was found where: something is found when all of it would have been masked,
and a finding is right when it touches something that is there. The others are judged text by text. Intervals are
Wilson's, of 95 %.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serin_gateway.guards.decisions import Decisions
from serin_gateway.guards.desk import make_detector
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.personal_kinds import COUNTRIES
from serin_gateway.guards.policy import Action, Direction, GuardPolicy
from serin_gateway.guards.screen import Replacement, Rule, Screen, screened

FAMILIES = (DetectorName.PII, DetectorName.SECRETS, DetectorName.UNICODE, DetectorName.INJECTION)
_Z = 1.959964


@dataclass(slots=True)
class Share:
    """Some of many."""

    part: int = 0
    whole: int = 0

    def add(self, is_part: bool) -> None:
        """One more."""
        self.part += is_part
        self.whole += 1

    @property
    def value(self) -> float:
        """From 0 to 1; of nothing, 1."""
        return self.part / self.whole if self.whole else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Where it may be, with 95 % confidence (Wilson 1927)."""
        if not self.whole:
            return 0.0, 1.0
        n, p = self.whole, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        reach = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - reach), min(1.0, middle + reach)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] ({self.part}/{self.whole})"


@dataclass(slots=True)
class Score:
    """How one detector did.

    Attributes:
        precision: of findings (or texts that something was found in), those that are right.
        recall: of what is there (or attacks), what was found.
        false_positives: of texts without anything, those in which something was found.
        misses: kinds of what was not found, and how often.
    """

    num_texts: int = 0
    precision: Share = field(default_factory=Share)
    recall: Share = field(default_factory=Share)
    false_positives: Share = field(default_factory=Share)
    misses: dict[str, int] = field(default_factory=dict)


def score(name: DetectorName, rows: Sequence[dict[str, Any]]) -> Score:
    """A detector on the rows of a corpus, through the screen that text of requests passes."""
    policy = GuardPolicy("evaluation", countries=tuple(COUNTRIES))
    rule = Rule(name, make_detector(policy, name), Action.MASK)
    result = Score()
    for row in rows:
        screen = Screen([rule], Direction.INPUT, Decisions())
        screened(screen, text_of(row))
        result.num_texts += 1
        if "attack" in row:
            _judge_text(result, row, bool(screen.replacements))
        else:
            _judge_spans(result, row, screen.replacements)
    return result


def text_of(row: dict[str, Any]) -> str:
    """The text of a row, which may be in pieces."""
    text = row["text"]
    return text if isinstance(text, str) else "".join(text)


def read(folder: Path, name: DetectorName, part: str) -> list[dict[str, Any]]:
    """The rows of one file."""
    with (folder / f"{name.value}.{part}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _judge_text(result: Score, row: dict[str, Any], is_found: bool) -> None:
    if is_found:
        result.precision.add(row["attack"])
    if row["attack"]:
        result.recall.add(is_found)
        if not is_found:
            _missed(result, "attack")
    else:
        result.false_positives.add(is_found)


def _judge_spans(result: Score, row: dict[str, Any], found: Sequence[Replacement]) -> None:
    spans = row["spans"]
    for one in found:
        result.precision.add(any(one.start < end and start < one.end for start, end, _ in spans))
    for start, end, kind in spans:
        is_found = any(one.start <= start and end <= one.end for one in found)
        result.recall.add(is_found)
        if not is_found:
            _missed(result, kind)
    if not spans:
        result.false_positives.add(bool(found))


def _missed(result: Score, kind: str) -> None:
    result.misses[kind] = result.misses.get(kind, 0) + 1


def table(scores: dict[DetectorName, Score]) -> Iterator[str]:
    """The figures, a line for each detector, as Markdown."""
    yield "| detector | texts | precision | recall | texts without anything in which something is found |"
    yield "|---|---:|---|---|---|"
    for name, one in scores.items():
        yield f"| {name.value} | {one.num_texts} | {one.precision} | {one.recall} | {one.false_positives} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m serin_gateway.guards.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the corpora")
    parser.add_argument("--part", choices=("held_out", "tuning"), default="held_out", help="default: held_out")
    parser.add_argument("--misses", action="store_true", help="say of which kinds something was missed")
    parser.add_argument("--show", action="store_true", help="show the texts of the tuning part that were judged wrong")
    arguments = parser.parse_args(argv)
    if arguments.show and arguments.part != "tuning":
        parser.error("--show: only with --part tuning: held-out texts that were seen are held out no more")
    scores = {name: score(name, read(arguments.folder, name, arguments.part)) for name in FAMILIES}
    lines = list(table(scores))
    if arguments.misses:
        lines += [f"{name.value}: missed {one.misses}" for name, one in scores.items() if one.misses]
    if arguments.show:
        lines += _wrong(arguments.folder)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _wrong(folder: Path) -> Iterator[str]:
    """Texts of the tuning part that are judged wrong, and what was found in them."""
    policy = GuardPolicy("evaluation", countries=tuple(COUNTRIES))
    for name in FAMILIES:
        detector = make_detector(policy, name)
        for row in read(folder, name, "tuning"):
            one = Score()
            text = text_of(row)
            found = [Replacement(each.start, each.end, each.mask) for each in detector.find(text, 0)]
            if "attack" in row:
                _judge_text(one, row, bool(found))
            else:
                _judge_spans(one, row, found)
            if one.precision.value < 1 or one.recall.value < 1:
                what = [(each.mask, text[each.start : each.end]) for each in found]
                yield f"{name.value}: {text!r} -> {what}, missed {list(one.misses)}"


if __name__ == "__main__":
    sys.exit(main())
