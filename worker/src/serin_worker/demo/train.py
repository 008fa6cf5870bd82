"""Train a demo model: ``python -m serin_worker.demo.train --out DIR [--family F] --version V [--steps N] [--smoke]``.

The same arguments, torch and number of threads give the same weights on the same kind of processor. On a GPU it is
faster and as accurate, but the bits are not promised.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from serin_worker.demo.accuracy import Accuracy, measure
from serin_worker.demo.answering import answers
from serin_worker.demo.corpus import held_out_items
from serin_worker.demo.flags import positive
from serin_worker.demo.folder import Made, write_folder
from serin_worker.demo.table import accuracy_table
from serin_worker.demo.tokenizer import build_tokenizer
from serin_worker.demo.training import Recipe, Training

RECIPES = {
    "small": {
        "v1": Recipe(num_steps=1800),
        "v2": Recipe(num_steps=4800, num_rows=32),
        "v3": Recipe(num_steps=4800, num_rows=16, row_length=512, extra_kind="errands"),
    },
    "mini": {"v1": Recipe(num_steps=3600, family="mini")},
}
"""By family and version. small v1 learns the same corpus in the same way as v2, but too briefly: a real model that is
really worse. v3, which is not made yet, would learn two calls in one answer too, in as many tokens as v2 but in rows
that hold such a dialogue. mini does a fifth of small's work for a token: the first model of a cascade."""

SMOKE_STEPS = 12
NUM_QUESTIONS = 600
NUM_SMOKE_QUESTIONS = 12
REPORT_EVERY = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write the folder; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version not in RECIPES[options.family]:
        known = ", ".join(RECIPES[options.family])
        parser.error(f"--version {options.version}: no recipe of {options.family}; accepted: {known}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; train with --device cpu")
    torch.set_num_threads(options.threads)
    recipe = _recipe(options)
    training = Training(recipe, options.device)
    loss = _train(training)
    num_questions = NUM_SMOKE_QUESTIONS if options.smoke else NUM_QUESTIONS
    accuracy = _accuracy(training, num_questions)
    made = Made(options.version, recipe, options.device, loss, accuracy)
    write_folder(options.out, training.model, made)
    _say(accuracy_table({options.version: accuracy}))
    _say(f"wrote {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serin_worker.demo.train", description="Train a demo model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--family", choices=tuple(RECIPES), default="small", help="which shape (default small)")
    parser.add_argument("--version", required=True, help="whose recipe to follow, for example v1")
    parser.add_argument("--steps", type=positive, help="take this many steps instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed of weights and dialogues (default: the recipe's)")
    parser.add_argument("--threads", type=positive, default=2, help="processor threads (default 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default cpu)")
    parser.add_argument("--smoke", action="store_true", help="only try the whole path: a few small steps")
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    recipe = RECIPES[options.family][options.version]
    if options.smoke:
        recipe = replace(recipe, num_steps=SMOKE_STEPS, num_rows=4)
    if options.steps is not None:
        recipe = replace(recipe, num_steps=options.steps)
    if options.seed is not None:
        recipe = replace(recipe, seed=options.seed)
    return recipe


def _train(training: Training) -> float:
    """Take all steps, say now and then how it goes; returns the mean loss since the last time it was said."""
    started = time.monotonic()
    num_steps = training.recipe.num_steps
    recent: list[float] = []
    mean = 0.0
    for progress in training.run():
        recent.append(progress.loss)
        if progress.step % REPORT_EVERY == 0 or progress.step == num_steps:
            mean = sum(recent) / len(recent)
            recent.clear()
            passed_s = time.monotonic() - started
            left_s = passed_s / progress.step * (num_steps - progress.step)
            _say(f"step {progress.step}/{num_steps}  loss {mean:.4f}  {passed_s:.0f} s passed, {left_s:.0f} s to go")
    return mean


def _accuracy(training: Training, num_questions: int) -> Accuracy:
    items = held_out_items(num_questions, extra=training.recipe.extra_kind)
    return measure(items, answers(training.model, build_tokenizer(), items))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
