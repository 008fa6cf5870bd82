"""Protobuf to the room's own types and back.

Knows the contract, and nothing about engines or servers.
"""

import secrets
from collections.abc import Iterable, Sequence

from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.worker.v1 import worker_pb2
from serin_mesh.errors import MeshError, Reason

from serin_worker.accounts import Account
from serin_worker.namespaces import Namespace
from serin_worker.outputs import ChoiceFinished, Delta, Started, Summary, TokenLogprobs
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, ScoreRequest, Stopping

MAX_REQUEST_ID_BYTES = 128
MAX_BIASES = 1024
MAX_STOP_IDS = 64
_FINISH_REASONS = {"stop": sampling_pb2.FINISH_REASON_STOP, "length": sampling_pb2.FINISH_REASON_LENGTH}


def read_generation(request: worker_pb2.GenerateRequest, namespace: Namespace) -> GenerationRequest:
    """A generation as the engine wants it; a seed is drawn where one is needed and none was sent.

    Raises:
        MeshError: something is asked for that this worker does not do.
        RequestRefused: a value is out of range.
    """
    asked = request.sampling
    _check_request_id(request.request_id)
    if request.HasField("grammar") and request.grammar.kind != sampling_pb2.GRAMMAR_KIND_PREPARED:
        raise _invalid("grammar", "the grammar is not prepared; accepted: what tokenizer-svc's PrepareGrammar gives")
    if request.kv_source:
        raise _unsupported("kv_source", "kv_source: this worker fetches no blocks from others; leave it empty")
    if not -100 <= request.priority <= 100:
        raise _invalid("priority", f"priority is {request.priority}; accepted: -100 to 100")
    sampling = _read_sampling(asked)
    if request.prior_outputs and not asked.HasField("seed") and not sampling.is_greedy:
        raise _invalid("seed", "prior_outputs are continued with draws: the seed that began them is needed")
    return GenerationRequest(
        request_id=request.request_id,
        prompt_ids=_read_prompt(request.prompt),
        sampling=sampling,
        stopping=_read_stopping(asked),
        num_choices=asked.choice_count if asked.HasField("choice_count") else 1,
        grammar=request.grammar.text,
        prior=[PriorOutput(p.choice_index, list(p.token_ids), p.finished) for p in request.prior_outputs],
        namespace=namespace.root,
        purge_key=namespace.owner,
        priority=request.priority,
        tenant=request.tenant_key,
        tenant_weight=request.tenant_weight if request.HasField("tenant_weight") else 1.0,
    )


def read_score(request: worker_pb2.ScoreRequest) -> ScoreRequest:
    """A score as the engine wants it.

    Raises:
        MeshError: something is asked for that this worker does not do.
        RequestRefused: a value is out of range.
    """
    _check_request_id(request.request_id)
    if not -100 <= request.priority <= 100:
        raise _invalid("priority", f"priority is {request.priority}; accepted: -100 to 100")
    return ScoreRequest(
        request_id=request.request_id,
        prompt_ids=_read_prompt(request.prompt),
        target_ids=list(request.target_token_ids),
        num_alternatives=request.top_logprobs,
        priority=request.priority,
        tenant=request.tenant_key,
    )


def delta_response(delta: Delta) -> worker_pb2.GenerateResponse:
    """New tokens of a choice."""
    return worker_pb2.GenerateResponse(
        delta=worker_pb2.GenerationDelta(
            choice_index=delta.choice_index,
            first_position=delta.first_position,
            token_ids=delta.token_ids,
            logprobs=[logprob_message(entry) for entry in delta.logprobs],
        )
    )


def started_response(
    started: Started, *, worker: str, seed: int, kv_digest: str, numerics_class: str
) -> worker_pb2.GenerateResponse:
    """The first event."""
    return worker_pb2.GenerateResponse(
        started=worker_pb2.GenerationStarted(
            prompt_token_count=started.num_prompt_tokens,
            cached_token_count=started.num_cached_tokens,
            worker=worker,
            seed=seed,
            kv_digest=kv_digest,
            numerics_class=numerics_class,
        )
    )


def finished_response(finished: ChoiceFinished) -> worker_pb2.GenerateResponse:
    """The end of a choice."""
    return worker_pb2.GenerateResponse(
        choice_finished=worker_pb2.ChoiceFinished(
            choice_index=finished.choice_index,
            finish_reason=_FINISH_REASONS[finished.reason],
            stop_token_id=finished.stop_id,
        )
    )


def summary_response(summary: Summary) -> worker_pb2.GenerateResponse:
    """The last event."""
    return worker_pb2.GenerateResponse(
        summary=worker_pb2.GenerationSummary(
            prompt_token_count=summary.num_prompt_tokens,
            cached_token_count=summary.num_cached_tokens,
            generated_token_count=summary.num_output_tokens,
            preemption_count=summary.num_preemptions,
            queue_seconds=summary.queue_s,
            prefill_seconds=summary.prefill_s,
            decode_seconds=summary.decode_s,
        )
    )


def logprob_message(entry: TokenLogprobs) -> tokens_pb2.TokenLogprob:
    """Log-probabilities at one position."""
    alternatives = [tokens_pb2.TokenAlternative(token_id=i, logprob=value) for i, value in entry.alternatives]
    return tokens_pb2.TokenLogprob(logprob=entry.logprob, alternatives=alternatives)


def _read_sampling(asked: sampling_pb2.SamplingParameters) -> Sampling:
    if len(asked.logit_bias) > MAX_BIASES:
        raise _invalid("logit_bias", f"logit_bias has {len(asked.logit_bias)} entries; accepted: at most {MAX_BIASES}")
    return Sampling(
        temperature=asked.temperature if asked.HasField("temperature") else 1.0,
        top_k=asked.top_k,
        top_p=asked.top_p if asked.HasField("top_p") else 1.0,
        min_p=asked.min_p,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        repetition_penalty=asked.repetition_penalty if asked.HasField("repetition_penalty") else 1.0,
        logit_bias=dict(asked.logit_bias),
        seed=asked.seed if asked.HasField("seed") else secrets.randbits(64),
        num_logprobs=asked.top_logprobs if asked.HasField("top_logprobs") else None,
    )


def _read_stopping(asked: sampling_pb2.SamplingParameters) -> Stopping:
    if len(asked.stop_token_ids) > MAX_STOP_IDS:
        raise _invalid("stop_token_ids", f"there are {len(asked.stop_token_ids)}; accepted: at most {MAX_STOP_IDS}")
    return Stopping(
        max_tokens=asked.max_tokens if asked.HasField("max_tokens") else None,
        min_tokens=asked.min_tokens,
        stop_ids=frozenset(asked.stop_token_ids),
        ignore_eos=asked.ignore_eos,
    )


def _read_prompt(segments: Sequence[tokens_pb2.Segment]) -> list[int]:
    ids: list[int] = []
    for segment in segments:
        kind = segment.WhichOneof("content")
        if kind is None:
            raise _invalid("prompt", "a segment of the prompt is empty; accepted: token ids")
        if kind == "media":
            raise _unsupported("prompt", "media in a prompt is not supported by this worker")
        ids += segment.tokens.token_ids
    return ids


def _check_request_id(request_id: str) -> None:
    length = len(request_id.encode())
    if not 1 <= length <= MAX_REQUEST_ID_BYTES:
        raise _invalid("request_id", f"request_id has {length} bytes; accepted: 1 to {MAX_REQUEST_ID_BYTES}")


def _invalid(parameter: str, message: str) -> MeshError:
    return MeshError(Reason.PARAMETER_INVALID, message, parameter=parameter)


def _unsupported(parameter: str, message: str) -> MeshError:
    return MeshError(Reason.PARAMETER_UNSUPPORTED, message, parameter=parameter)


def accounts_response(accounts: Iterable[Account]) -> worker_pb2.ListAccountsResponse:
    """What was sent for attempts."""
    return worker_pb2.ListAccountsResponse(
        accounts=[
            worker_pb2.Account(
                account=account.name,
                prompt_token_count=account.num_prompt_tokens,
                cached_token_count=account.num_cached_tokens,
                choices=[
                    worker_pb2.ChoiceAccount(choice_index=choice, token_count=count)
                    for choice, count in sorted(account.num_tokens.items())
                ],
                running=account.num_running > 0,
            )
            for account in accounts
        ]
    )
