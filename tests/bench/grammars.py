"""What following a grammar costs: a mask's own time, and an engine's steps with and without grammars, in one run.

    python tests/bench/grammars.py [--model DIR] [--rounds 5]

The arms take turns, so that other work on the machine meets all of them; the ratio of medians is what counts.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.grammar_language import translate
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.grammars.constraint import Constraint
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine

DEMO_MODEL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
PROMPT = list(b"Write JSON: name Ada, age 36.")
NUM_TOKENS = 200
RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 10, "maxLength": 40},
        "kind": {"enum": ["person", "place", "thing"]},
        "size": {"type": "number", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 4}, "minItems": 2},
    },
    "required": ["name", "kind", "size", "tags"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": RECORD, "minItems": 50}
GRAMMAR = translate(GrammarSource("json_schema", json.dumps(SCHEMA))).lark


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEMO_MODEL))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    engine, about = load_engine(arguments.model, EngineConfig(max_num_sequences=32))
    vocabulary = GrammarVocabulary(about.folder, about.vocabulary_size, engine.bounds.end_ids)
    mask_s, take_s, open_s = following(vocabulary, engine)
    print(f"vocabulary of {vocabulary.num_ids}, medians: a mask {1e6 * mask_s:.0f} µs, ", end="")
    print(f"a token taken {1e6 * take_s:.0f} µs, opening {1e3 * open_s:.2f} ms")
    print("| sequences | a step without grammars, ms | one each, ms | ratio | one beside the others, ms | ratio |")
    print("|---:|---:|---:|---:|---:|---:|")
    for num_sequences in (1, 8, 32):
        arms: dict[int, list[float]] = {0: [], num_sequences: [], 1: []}
        for _ in range(arguments.rounds):
            for num_grammars, times in arms.items():
                times += steps(engine, vocabulary, num_sequences, num_grammars)
        none, one, all_of_them = (1e3 * statistics.median(arms[n]) for n in (0, 1, num_sequences))
        print(f"| {num_sequences} | {none:.2f} | {all_of_them:.2f} | {all_of_them / none:.2f} ", end="")
        print(f"| {one:.2f} | {one / none:.2f} |")


def steps(engine: Engine, vocabulary: GrammarVocabulary, num_sequences: int, num_grammars: int) -> list[float]:
    """Seconds of each decoding step of so many sequences, of which some follow a grammar."""
    for number in range(num_sequences):
        constraints = {0: Constraint(GRAMMAR, vocabulary)} if number < num_grammars else {}
        sampling, stopping = Sampling(temperature=1.0, seed=number), Stopping(max_tokens=NUM_TOKENS, ignore_eos=True)
        engine.add(GenerationRequest(str(number), PROMPT, sampling, stopping, constraints=constraints))
    times: list[float] = []
    while engine.has_work:
        began = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - began)
    return times[num_sequences // 4 + 2 : NUM_TOKENS - 4]


def following(vocabulary: GrammarVocabulary, engine: Engine) -> tuple[float, float, float]:
    """Median seconds of a mask, of taking a token, and of opening the grammar."""
    opening = []
    for _ in range(20):
        began = time.perf_counter()
        constraint = Constraint(GRAMMAR, vocabulary)
        opening.append(time.perf_counter() - began)
    engine.add(
        GenerationRequest(
            "said", PROMPT, Sampling(seed=1), Stopping(max_tokens=NUM_TOKENS), constraints={0: constraint.fork()}
        )
    )
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    masks, taken = [], []
    for token_id in [i for _, output in outputs for i in getattr(output, "token_ids", ())]:
        began = time.perf_counter()
        constraint.allowed()
        masked = time.perf_counter()
        constraint.take([token_id])
        masks.append(masked - began)
        taken.append(time.perf_counter() - masked)
    return statistics.median(masks), statistics.median(taken), statistics.median(opening)


if __name__ == "__main__":
    main()
