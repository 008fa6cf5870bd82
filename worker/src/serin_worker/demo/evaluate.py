"""Measure models on held-out questions: ``python -m serin_worker.demo.evaluate [FOLDER ...] [--questions N] [--json]``.

Without folders, the demo models themselves. Any chat model that transformers loads can be asked.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serin_worker.demo.accuracy import Accuracy, measure
from serin_worker.demo.answering import answers
from serin_worker.demo.corpus import EXTRA, held_out_items
from serin_worker.demo.flags import positive
from serin_worker.demo.item import Item
from serin_worker.demo.paths import FAMILIES, DemoModelMissing, model_folder
from serin_worker.demo.table import accuracy_table

NUM_QUESTIONS = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table or JSON of accuracies; returns the exit code: 0, or 2 where a folder cannot be loaded."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    items = held_out_items(options.questions, extra=options.extra)
    try:
        folders = _folders(options.folders)
        columns = {name: accuracy_of(folder, items) for name, folder in folders.items()}
    except (DemoModelMissing, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write((_as_json(columns) if options.json else accuracy_table(columns)) + "\n")
    return 0


def accuracy_of(folder: Path, items: Sequence[Item]) -> Accuracy:
    """Accuracy of the model in a folder, in float32.

    Raises:
        OSError, ValueError: transformers cannot load the folder.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json there; name a model folder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return measure(items, answers(model, tokenizer, items))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serin_worker.demo.evaluate", description="Accuracy on held-out questions."
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: the demo models")
    parser.add_argument("--questions", type=positive, default=NUM_QUESTIONS, help="how many to ask (default 600)")
    parser.add_argument("--extra", default="", choices=("", *EXTRA), help="ask a further kind of question too")
    parser.add_argument("--threads", type=positive, default=2, help="processor threads (default 2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _folders(named: Sequence[Path]) -> dict[str, Path]:
    if named:
        return {str(folder): folder for folder in named}
    return {
        f"{family} {version}": model_folder(family, version)
        for family, versions in FAMILIES.items()
        for version in versions
    }


def _as_json(columns: dict[str, Accuracy]) -> str:
    models = [
        {"model": name, "accuracy": column.overall, "by_kind": column.by_kind, "num_asked": dict(column.num_asked)}
        for name, column in columns.items()
    ]
    return json.dumps({"models": models}, indent=2)


if __name__ == "__main__":
    sys.exit(main())
