"""How right and how fast a demo model answers in each precision: held-out questions through the engine, greedily.

    python tests/bench/precisions.py [--version v2] [--questions 600]

The arms take turns, a third of the questions at a time, so that other work on the machine meets all of them.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from engine import PRECISIONS
from report import keep, show
from serin_worker.config import EngineConfig
from serin_worker.demo.accuracy import measure
from serin_worker.demo.corpus import held_out_items
from serin_worker.demo.item import Item
from serin_worker.demo.paths import model_folder
from serin_worker.engine import Engine
from serin_worker.outputs import Delta
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine
from transformers import AutoTokenizer, PreTrainedTokenizerBase

ROUNDS = 3
MAX_TOKENS = 64
KEPT = Path("build/bench/precisions.json")


@dataclass
class Arm:
    """One precision: its engine, its answers so far and what they took."""

    engine: Engine
    answers: list[str] = field(default_factory=list)
    num_tokens: int = 0
    seconds: float = 0.0

    def ask(self, items: Sequence[Item], tokenizer: PreTrainedTokenizerBase) -> None:
        """Answer some questions."""
        tokens: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            name = str(len(self.answers) + number)
            tokens[name] = []
            prompt = tokenizer.apply_chat_template(
                list(item.messages), tools=list(item.tools) or None, add_generation_prompt=True, return_dict=False
            )
            sampling, stopping = Sampling(temperature=0.0), Stopping(max_tokens=MAX_TOKENS)
            self.engine.add(GenerationRequest(name, list(prompt), sampling, stopping))
        started = time.perf_counter()
        while self.engine.has_work:
            for name, output in self.engine.step():
                if isinstance(output, Delta):
                    tokens[name] += output.token_ids
        self.seconds += time.perf_counter() - started
        self.num_tokens += sum(map(len, tokens.values()))
        self.answers += [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens.values()]


def main() -> None:
    """Ask, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="small")
    parser.add_argument("--version", default="v2")
    parser.add_argument("--questions", type=int, default=600)
    given = parser.parse_args()
    folder = model_folder(given.family, given.version)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = held_out_items(given.questions)
    arms = {name: Arm(load_engine(str(folder), config(name))[0]) for name in PRECISIONS}
    share = -(-len(items) // ROUNDS)
    with torch.inference_mode():
        for first in range(0, len(items), share):
            for arm in arms.values():
                arm.ask(items[first : first + share], tokenizer)
    found = {
        name: {"accuracy": 100 * measure(items, arm.answers).overall, "tok_s": arm.num_tokens / arm.seconds}
        for name, arm in arms.items()
    }
    plain = found["bf16"]
    show(
        f"{given.family} {given.version}, {len(items)} held-out questions",
        ("precision", "right %", "points from bf16", "tokens/s", "times bf16"),
        [
            (
                name,
                one["accuracy"],
                one["accuracy"] - plain["accuracy"],
                one["tok_s"],
                f"{one['tok_s'] / plain['tok_s']:.2f}",
            )
            for name, one in found.items()
        ],
    )
    keep(KEPT, {"model": f"{given.family} {given.version}", "questions": len(items), "precisions": found})


def config(name: str) -> EngineConfig:
    """An engine of a precision, 64 sequences at a time."""
    precision, quantize = PRECISIONS[name]
    return EngineConfig(precision=precision, quantize=quantize, max_num_sequences=64, max_num_waiting=4096)


if __name__ == "__main__":
    main()
