"""Greedy float32 output equals transformers' generate, token for token, in both numerics modes."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, TinyKind, run_dry, tokens_of
from transformers import PreTrainedModel

KINDS: tuple[TinyKind, ...] = ("llama", "qwen3", "mistral")
GREEDY = Sampling(temperature=0.0)
NUM_NEW = 24


def prompts_of(lengths: tuple[int, ...], seed: int = 1) -> list[list[int]]:
    """Random prompts of these lengths."""
    draw = random.Random(seed)
    return [[draw.randrange(TINY_VOCABULARY) for _ in range(length)] for length in lengths]


PROMPTS = prompts_of((1, 3, 15, 16, 17, 40, 64, 100))


@pytest.fixture(scope="module")
def expected(reference: Callable[[TinyKind], PreTrainedModel]) -> Callable[[TinyKind], list[list[int]]]:
    """What transformers generates for every prompt."""
    found: dict[TinyKind, list[list[int]]] = {}

    def of(kind: TinyKind) -> list[list[int]]:
        if kind not in found:
            model = reference(kind)
            found[kind] = [
                model.generate(
                    torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt)),
                    max_new_tokens=NUM_NEW,
                    do_sample=False,
                )[0, len(prompt) :].tolist()
                for prompt in PROMPTS
            ]
        return found[kind]

    return of


def engine_of(folder: Path, **changes) -> Engine:
    """A float32 engine over a tiny model."""
    config = {"precision": "float32", "numerics": "fast", "num_blocks": 128, "num_threads": 1, **changes}
    return load_engine(str(folder), EngineConfig(**config))[0]


def request_of(index: int, **changes) -> GenerationRequest:
    """A greedy request for one of the prompts."""
    return GenerationRequest(f"r{index}", PROMPTS[index], GREEDY, Stopping(max_tokens=NUM_NEW), **changes)


@pytest.mark.parametrize("numerics", ["fast", "invariant"])
@pytest.mark.parametrize("kind", KINDS)
def test_alone_and_in_a_shuffled_batch(kind, numerics, tiny_folder, expected):
    """One request at a time, then all at once in another order: the same tokens as transformers."""
    engine = engine_of(tiny_folder(kind), numerics=numerics)
    for index, tokens in enumerate(expected(kind)):
        engine.add(request_of(index))
        assert tokens_of(run_dry(engine)[f"r{index}"]) == tokens
    order = list(range(len(PROMPTS)))
    random.Random(7).shuffle(order)
    for index in order:
        engine.add(request_of(index))
    outputs = run_dry(engine)
    assert [tokens_of(outputs[f"r{index}"]) for index in range(len(PROMPTS))] == expected(kind)
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("kind", KINDS)
def test_chunked_prefill(kind, tiny_folder, expected):
    """A token budget far below the prompts' length changes nothing."""
    engine = engine_of(tiny_folder(kind), max_num_batched_tokens=11, max_num_sequences=5)
    for index in range(len(PROMPTS)):
        engine.add(request_of(index))
    outputs = run_dry(engine)
    assert [tokens_of(outputs[f"r{index}"]) for index in range(len(PROMPTS))] == expected(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_after_preemption(kind, tiny_folder, expected):
    """A cache too small for all of them preempts some, and nobody can tell."""
    engine = engine_of(tiny_folder(kind), num_blocks=8 if kind == "mistral" else 12)  # its window gives blocks back
    for index in range(len(PROMPTS)):
        engine.add(request_of(index))
    outputs = run_dry(engine)
    assert engine.counts.num_preemptions > 0
    assert [tokens_of(outputs[f"r{index}"]) for index in range(len(PROMPTS))] == expected(kind)
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("kind", KINDS)
def test_after_resume_at_every_position(kind, tiny_folder, expected):
    """Prior output of any length is continued as if it had never stopped, and its positions are counted on."""
    engine = engine_of(tiny_folder(kind))
    for index in (2, 4, 5):
        tokens = expected(kind)[index]
        for length in range(NUM_NEW):
            prior = (PriorOutput(0, tokens[:length]),)
            engine.add(
                GenerationRequest(
                    f"{index}-{length}", PROMPTS[index], GREEDY, Stopping(max_tokens=NUM_NEW), prior=prior
                )
            )
    outputs = run_dry(engine)
    for index in (2, 4, 5):
        tokens = expected(kind)[index]
        for length in range(NUM_NEW):
            assert tokens_of(outputs[f"{index}-{length}"]) == tokens[length:]
            deltas = [output for output in outputs[f"{index}-{length}"] if hasattr(output, "first_position")]
            assert [delta.first_position for delta in deltas] == list(range(length, NUM_NEW))


@pytest.mark.parametrize("kind", KINDS)
def test_with_prefix_hits(kind, tiny_folder, expected):
    """A prompt whose blocks are found in the cache gives the same tokens, and its hits are counted to the block."""
    engine = engine_of(tiny_folder(kind))
    for attempt in range(2):
        for index in range(len(PROMPTS)):
            engine.add(request_of(index, namespace=b"n"))
            outputs = run_dry(engine)[f"r{index}"]
            assert tokens_of(outputs) == expected(kind)[index]
            num_hits = (len(PROMPTS[index]) - 1) // 16 * 16 if attempt else 0
            assert outputs[0].num_cached_tokens == num_hits


def test_softcap_and_alternating_windows(tiny_folder, reference):
    """Gemma 2: attention softcap, sliding windows on every other layer, scaled embeddings."""
    engine = engine_of(tiny_folder("gemma2"))
    for index, prompt in enumerate(PROMPTS):
        engine.add(request_of(index))
        tokens = tokens_of(run_dry(engine)[f"r{index}"])
        with torch.inference_mode():
            logits = reference("gemma2")(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == tokens
