"""numerics: invariant — the same bits alone, in any batch, chunked, preempted, resumed, with prefix hits."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.model.processor import instruction_set
from serin_worker.outputs import Delta, Output
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, run_dry

PRECISIONS = ("float32", "bfloat16", "float16")
KINDS = ("llama", "qwen3", "mistral")
NUM_NEW = 12


def sampled(draw: random.Random) -> Sampling:
    """Random sampling parameters."""
    return Sampling(
        temperature=draw.choice((0.0, 0.7, 1.0, 2.0)),
        top_k=draw.choice((0, 0, 20)),
        top_p=draw.choice((1.0, 0.9)),
        min_p=draw.choice((0.0, 0.02)),
        frequency_penalty=draw.choice((0.0, 0.5)),
        repetition_penalty=draw.choice((1.0, 1.3)),
        seed=draw.getrandbits(64),
        num_logprobs=2,
    )


def tokens_and_logprobs(outputs: list[Output], num_choices: int) -> list[list[tuple]]:
    """(token, its log-probabilities to the last bit) of each choice."""
    found: list[list[tuple]] = [[] for _ in range(num_choices)]
    for output in outputs:
        if isinstance(output, Delta):
            found[output.choice_index] += zip(output.token_ids, output.logprobs, strict=True)
    return found


@pytest.fixture(scope="module")
def engines(tiny_folder):
    """(roomy engine that runs requests alone, cramped one that batches, chunks and preempts) by kind and precision."""
    made: dict[tuple[str, str], tuple[Engine, Engine]] = {}

    def of(kind: str, precision: str) -> tuple[Engine, Engine]:
        if (kind, precision) not in made:
            common = {"precision": precision, "numerics": "invariant", "num_threads": 1}
            roomy = EngineConfig(**common, num_blocks=64)
            cramped = EngineConfig(**common, num_blocks=10, max_num_batched_tokens=19, max_num_sequences=6)
            folder = str(tiny_folder(kind))
            made[kind, precision] = (load_engine(folder, roomy)[0], load_engine(folder, cramped)[0])
        return made[kind, precision]

    return of


@settings(max_examples=12)
@given(draw=st.randoms(use_true_random=True), kind=st.sampled_from(KINDS), precision=st.sampled_from(PRECISIONS))
def test_the_same_tokens_and_logprobs_however_a_request_runs(engines, draw, kind, precision):
    """Alone in a roomy engine; and in a crowd with a cramped cache, a small budget, prefix hits and resumes."""
    roomy, cramped = engines(kind, precision)
    requests, right = [], {}
    for number in range(8):
        prompt = [draw.randrange(TINY_VOCABULARY) for _ in range(draw.choice((1, 5, 16, 30, 60)))]
        if number % 3 == 2:
            prompt = [*requests[-1].prompt_ids, *prompt][:120]
        num_choices = draw.choice((1, 1, 2))
        request = GenerationRequest(
            f"r{number}", prompt, sampled(draw), Stopping(max_tokens=NUM_NEW), num_choices=num_choices
        )
        requests.append(request)
        roomy.add(request)
        right[request.request_id] = tokens_and_logprobs(run_dry(roomy)[request.request_id], num_choices)
    starts = {}
    for request in requests:
        choices = right[request.request_id]
        starts[request.request_id] = [draw.choice((0, 0, draw.randint(0, NUM_NEW - 1))) for _ in choices]
        prior = [
            PriorOutput(index, [token for token, _ in choices[index][:start]])
            for index, start in enumerate(starts[request.request_id])
        ]
        cramped.add(
            GenerationRequest(
                request.request_id,
                request.prompt_ids,
                request.sampling,
                request.stopping,
                num_choices=request.num_choices,
                prior=prior,
                namespace=draw.choice((b"", b"n")),
            )
        )
    outputs = run_dry(cramped)
    for request in requests:
        found = tokens_and_logprobs(outputs[request.request_id], request.num_choices)
        for index, start in enumerate(starts[request.request_id]):
            assert found[index] == right[request.request_id][index][start:]
    assert cramped.pool.num_free == cramped.pool.num_blocks


def test_the_cramped_engine_really_preempts(engines):
    """The engine above is small enough for eight requests to preempt each other."""
    _, cramped = engines("llama", "float32")
    before = cramped.counts.num_preemptions
    for number in range(8):
        cramped.add(
            GenerationRequest(f"p{number}", [number] * 40, Sampling(temperature=0.0), Stopping(max_tokens=NUM_NEW))
        )
    run_dry(cramped)
    assert cramped.counts.num_preemptions > before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_rows_keep_their_bits_in_whole_tiles(dtype):
    """What padding to tiles of 16 rows relies on: a row's product has the same bits in any number of tiles."""
    if dtype is torch.bfloat16 and instruction_set() == "amx":
        pytest.skip("plain layers do not on this processor; packed ones, which serve there, do (test_packing.py)")
    generator = torch.Generator().manual_seed(0)
    for size_in, size_out in ((64, 96), (192, 512), (1024, 3072), (100, 333)):
        weight = torch.randn((size_out, size_in), generator=generator).to(dtype)
        rows = torch.randn((528, size_in), generator=generator).to(dtype)
        together = torch.nn.functional.linear(rows, weight)
        for num_rows in (16, 32, 48, 128, 512):
            for first in (0, 16):
                part = torch.nn.functional.linear(rows[first : first + num_rows], weight)
                assert torch.equal(part, together[first : first + num_rows])
        shifted = torch.nn.functional.linear(torch.roll(rows[:16], 5, 0), weight)
        assert torch.equal(torch.roll(shifted, -5, 0), together[:16])
