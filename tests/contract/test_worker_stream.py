"""`WorkerService.Generate` as the contract draws it, asked directly: grammar, positions, resume, refusals."""

from collections.abc import AsyncIterator

import grpc
import pytest
from harness.asking import TINY
from harness.instances import endpoint_of
from harness.running_mesh import RunningMesh
from harness.stream_grammar import check_grammar, check_positions, tokens_by_choice
from harness.wire_errors import error_info
from serin.control.v1 import registry_pb2
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc

DEADLINE_S = 30.0
PROMPT = [40, 50, 60, 70, 80]


@pytest.fixture
async def worker(mesh: RunningMesh) -> AsyncIterator[worker_pb2_grpc.WorkerServiceStub]:
    """The worker of the tiny model."""
    endpoint = await endpoint_of(mesh, registry_pb2.SERVICE_KIND_WORKER, TINY)
    async with grpc.aio.insecure_channel(endpoint) as channel:
        yield worker_pb2_grpc.WorkerServiceStub(channel)


@pytest.fixture
async def vocabulary(worker) -> str:
    """Digest of the tiny model's ids."""
    return (await worker.DescribeWorker(worker_pb2.DescribeWorkerRequest(), timeout=DEADLINE_S)).vocabulary_digest


def ask(vocabulary: str, request_id: str, prior=(), **sampling: object) -> worker_pb2.GenerateRequest:
    """A greedy request of 24 tokens."""
    return worker_pb2.GenerateRequest(
        request_id=request_id,
        vocabulary_digest=vocabulary,
        prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=PROMPT))],
        sampling=sampling_pb2.SamplingParameters(**{"temperature": 0, "max_tokens": 24, **sampling}),
        prior_outputs=prior,
    )


async def test_events_follow_the_grammar(worker, vocabulary: str):
    """Started, deltas without gap or repeat, the choice's end, summary with exact counts."""
    events = [event async for event in worker.Generate(ask(vocabulary, "grammar"), timeout=DEADLINE_S)]
    check_grammar(events)
    check_positions(events)
    assert events[0].started.prompt_token_count == len(PROMPT)
    assert events[0].started.kv_digest
    assert events[0].started.numerics_class
    assert events[-1].summary.generated_token_count == len(tokens_by_choice(events)[0]) == 24


async def test_choices_each_follow_the_grammar(worker, vocabulary: str):
    """Four sampled choices: each without gap or repeat, each with its own end."""
    request = ask(vocabulary, "choices", temperature=1.2, seed=9, choice_count=4)
    events = [event async for event in worker.Generate(request, timeout=DEADLINE_S)]
    check_grammar(events, num_choices=4)
    check_positions(events)
    assert events[0].started.seed == 9


@pytest.mark.parametrize("num_prior", [1, 7, 23])
async def test_a_resumed_answer_is_the_undisturbed_one(worker, vocabulary: str, num_prior: int):
    """Prior output is replayed, not repeated: the deltas go on behind it with the same ids."""
    sampling = {"temperature": 0.9, "seed": 21}
    whole = [event async for event in worker.Generate(ask(vocabulary, "whole", **sampling), timeout=DEADLINE_S)]
    tokens = tokens_by_choice(whole)[0]
    prior = [tokens_pb2.PriorOutput(choice_index=0, token_ids=tokens[:num_prior])]
    resumed = [event async for event in worker.Generate(ask(vocabulary, "rest", prior, **sampling), timeout=DEADLINE_S)]
    check_grammar(resumed)
    check_positions(resumed, first_position=num_prior)
    assert tokens_by_choice(resumed)[0] == tokens[num_prior:]
    assert resumed[-1].summary.generated_token_count == 24 - num_prior


async def test_another_vocabulary_is_refused(worker):
    """Ids of another vocabulary never reach the engine."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(aiter(worker.Generate(ask("00" * 32, "foreign"), timeout=DEADLINE_S)))
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(failure.value).reason == "VOCABULARY_MISMATCH"


async def test_a_call_without_a_deadline_is_refused(worker, vocabulary: str):
    """Every RPC has a deadline; one without is the caller's mistake and says so."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(aiter(worker.Generate(ask(vocabulary, "endless"))))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(failure.value).reason == "DEADLINE_MISSING"


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": 25}, "min_tokens"),
        ({"choice_count": 129}, "choice_count"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {5: 101}}, "logit_bias"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"repetition_penalty": 1e-38}, "repetition_penalty"),
        ({"repetition_penalty": 2.5}, "repetition_penalty"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_values_out_of_range_are_refused_by_name(worker, vocabulary: str, change, parameter: str):
    """The worker trusts no caller: every range is checked again, the parameter named."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(aiter(worker.Generate(ask(vocabulary, "range", **change), timeout=DEADLINE_S)))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_info(failure.value)
    assert info.reason == "PARAMETER_INVALID"
    assert parameter in info.metadata["parameter"]


async def test_a_prompt_that_leaves_no_room_is_refused(worker, vocabulary: str):
    """A prompt longer than the context names both numbers."""
    request = ask(vocabulary, "long")
    request.prompt[0].tokens.token_ids.extend([41] * 5000)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(aiter(worker.Generate(request, timeout=DEADLINE_S)))
    assert error_info(failure.value).reason == "PROMPT_TOO_LONG"
    assert "5005" in (failure.value.details() or "")
    assert "4096" in (failure.value.details() or "")
