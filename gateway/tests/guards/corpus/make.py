"""Writes the corpora: for each family of detectors a file for tuning and one that is held out.

`python gateway/tests/guards/corpus/make.py`. Seeded: the same files each time. A line is ``{"text", "template", "spans":
[[start, end, kind], ...]}``; of families that are judged text by text, ``"attack"`` instead of spans. Texts of secrets
are in pieces, so that nobody who scans this repository takes one for real.
"""

import json
import random
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import injection_texts
import pii_texts
import secret_texts
import unicode_texts
from values import PERSONAL

HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\??)(\w+)\}")
Make = Callable[[random.Random], str]


def lines(text: str) -> list[str]:
    """The templates of a block."""
    return [line.replace("\\n", "\n") for line in text.strip().splitlines()]


def filled(
    rng: random.Random, template: str, wanted: Mapping[str, Make], harmless: Mapping[str, Make]
) -> tuple[str, list[list]]:
    """A template with values in it, and where the wanted ones are."""
    text, spans, at = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[at : slot.start()]
        at = slot.end()
        is_harmless, name = slot[1] == "?", slot[2]
        if is_harmless:
            text += harmless[name](rng)
            continue
        kind = rng.choice(secret_texts.KNOWN) if name == "KNOWN" else name
        value = wanted[kind](rng)
        spans.append([len(text), len(text) + len(value), kind])
        text += value
    text += template[at:]
    shift = [match.start() for match in re.finditer(r"\{\{|\}\}", text)]
    spans = [
        [start - sum(s < start for s in shift), end - sum(s < end for s in shift), kind] for start, end, kind in spans
    ]
    return text.replace("{{", "{").replace("}}", "}"), spans


def templated(seed: int, blocks: list[tuple[str, str, int]], wanted: dict, harmless: dict) -> list[dict]:
    """Rows of some blocks of templates: name, block, how often each template is filled."""
    rng, rows = random.Random(seed), []
    for name, block, times in blocks:
        for number, template in enumerate(lines(block)):
            for _ in range(times):
                text, spans = filled(rng, template, wanted, harmless)
                rows.append({"text": text, "template": f"{name}-{number}", "spans": spans})
    return rows


def judged(rows: list[tuple[str, str, bool]]) -> list[dict]:
    """Rows that are attacks or not, each text once."""
    seen, kept = set(), []
    for text, template, attack in rows:
        if text not in seen:
            seen.add(text)
            kept.append({"text": text, "template": template, "attack": attack})
    return kept


def unicode_rows(seed: int, count: int, trick: Make, clean: Make, name: str) -> list[dict]:
    """Tricks and clean texts, as many of both as are different."""
    rng = random.Random(seed)
    rows = [(trick(rng), f"{name}-trick", True) for _ in range(count)]
    return judged(rows + [(clean(rng), f"{name}-clean", False) for _ in range(count * 2)])


def injection_rows(attacks: str, benign: str, ordinary: range, name: str) -> list[dict]:
    """Attacks, texts that only talk like them, and ordinary ones."""
    rows = [(text, f"{name}-attack-{n}", True) for n, text in enumerate(lines(attacks))]
    rows += [(text, f"{name}-benign-{n}", False) for n, text in enumerate(lines(benign))]
    for n, frame in enumerate(injection_texts.ORDINARY):
        if n in ordinary:
            rows += [(frame.format(topic), f"{name}-ordinary-{n}", False) for topic in injection_texts.TOPICS]
    return judged(rows)


def in_pieces(row: dict) -> dict:
    """The same with its text cut inside of every secret's beginning."""
    cuts = sorted({start + min(4, (end - start) // 2) for start, end, _ in row["spans"]})
    text, pieces, at = row["text"], [], 0
    for cut in cuts:
        pieces.append(text[at:cut])
        at = cut
    return row | {"text": [*pieces, text[at:]]}


def write(name: str, rows: list[dict]) -> None:
    """One file."""
    path = HERE / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    print(f"{path.name}: {len(rows)} texts")


def main() -> None:
    """All of them."""
    p, s, i = pii_texts, secret_texts, injection_texts
    write("pii.tuning", templated(
        1, [("t-with", p.TUNING_WITH, 5), ("t-without", p.TUNING_WITHOUT, 6)], PERSONAL, p.HARMLESS))  # fmt: skip
    write("pii.held_out", templated(
        2, [("h-with", p.HELD_OUT_WITH, 6), ("h-without", p.HELD_OUT_WITHOUT, 5)], PERSONAL, p.HARMLESS))  # fmt: skip
    write("secrets.tuning", [in_pieces(row) for row in templated(
        3, [("t-with", s.TUNING_WITH, 12), ("t-without", s.TUNING_WITHOUT, 8)], s.SECRETS, s.HARMLESS)])  # fmt: skip
    write("secrets.held_out", [in_pieces(row) for row in templated(
        4, [("h-with", s.HELD_OUT_WITH, 9), ("h-without", s.HELD_OUT_WITHOUT, 7)], s.SECRETS, s.HARMLESS)])  # fmt: skip
    write("unicode.tuning", unicode_rows(5, 120, unicode_texts.tuning_trick, unicode_texts.tuning_clean, "t"))
    write("unicode.held_out", unicode_rows(6, 240, unicode_texts.held_out_trick, unicode_texts.held_out_clean, "h"))
    write("injection.tuning", injection_rows(i.TUNING_ATTACKS, i.TUNING_BENIGN, range(5, 7), "t"))
    write("injection.held_out", injection_rows(i.HELD_OUT_ATTACKS, i.HELD_OUT_BENIGN, range(5), "h"))


if __name__ == "__main__":
    main()
