"""Between the gateway's own types and protobuf. Knows nothing about calls."""

from collections.abc import Sequence

from serin.generation.v1 import sampling_pb2, tokens_pb2

from serin_gateway.ask import Sampling, refuse
from serin_gateway.events import FinishReason
from serin_gateway.grammar import Grammar, GrammarKind
from serin_gateway.worker import TokenLogprob

_FROM_FINISH = {
    sampling_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    sampling_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    sampling_pb2.FINISH_REASON_TOOL_CALLS: FinishReason.TOOL_CALLS,
    sampling_pb2.FINISH_REASON_CONTENT_FILTER: FinishReason.CONTENT_FILTER,
}
_GRAMMAR_KINDS = {
    GrammarKind.JSON_SCHEMA: sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA,
    GrammarKind.REGEX: sampling_pb2.GRAMMAR_KIND_REGEX,
    GrammarKind.EBNF: sampling_pb2.GRAMMAR_KIND_EBNF,
    GrammarKind.CHOICE: sampling_pb2.GRAMMAR_KIND_CHOICE,
}
_FROM_GRAMMAR_KIND = {number: kind for kind, number in _GRAMMAR_KINDS.items()}
_TO_FINISH = {reason: number for number, reason in _FROM_FINISH.items()}


def to_segments(token_ids: Sequence[int]) -> list[tokens_pb2.Segment]:
    """A prompt of ids alone."""
    return [tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=token_ids))]


def from_segments(segments: Sequence[tokens_pb2.Segment]) -> list[int]:
    """The ids of a prompt of ids alone."""
    if len(segments) == 1:
        return list(segments[0].tokens.token_ids)
    return [token_id for segment in segments for token_id in segment.tokens.token_ids]


def to_sampling(sampling: Sampling) -> sampling_pb2.SamplingParameters:
    """Sampling as protobuf; what was left open stays absent."""
    return sampling_pb2.SamplingParameters(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        top_logprobs=sampling.top_logprobs,
        choice_count=sampling.choice_count,
    )


def from_sampling(message: sampling_pb2.SamplingParameters) -> Sampling:
    """Sampling of a caller over gRPC, with the documented defaults for what is absent."""
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        min_p=message.min_p,
        frequency_penalty=message.frequency_penalty,
        presence_penalty=message.presence_penalty,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        logit_bias=dict(message.logit_bias),
        seed=message.seed if message.HasField("seed") else None,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        min_tokens=message.min_tokens,
        stop_token_ids=list(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        top_logprobs=message.top_logprobs if message.HasField("top_logprobs") else None,
        choice_count=message.choice_count if message.HasField("choice_count") else 1,
    )


def to_grammar(grammar: Grammar) -> sampling_pb2.Grammar:
    """A client's grammar as protobuf."""
    return sampling_pb2.Grammar(kind=_GRAMMAR_KINDS[grammar.kind], text=grammar.text, lenient=grammar.lenient)


def from_grammar(message: sampling_pb2.Grammar) -> Grammar:
    """A grammar of a caller over gRPC.

    Raises:
        MeshError: PARAMETER_INVALID; it is of no kind that callers may use.
    """
    kind = _FROM_GRAMMAR_KIND.get(message.kind)
    if kind is None:
        raise refuse("grammar.kind", "accepted: a JSON schema, a regular expression, EBNF or choices")
    return Grammar(kind, message.text, message.lenient)


def to_prepared(grammar: str) -> sampling_pb2.Grammar | None:
    """A prepared grammar as protobuf; None for none."""
    return sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_PREPARED, text=grammar) if grammar else None


def to_logprob(one: TokenLogprob) -> tokens_pb2.TokenLogprob:
    """A log-probability as protobuf."""
    alternatives = [tokens_pb2.TokenAlternative(token_id=i, logprob=logprob) for i, logprob in one.alternatives]
    return tokens_pb2.TokenLogprob(logprob=one.logprob, alternatives=alternatives)


def from_logprob(one: tokens_pb2.TokenLogprob) -> TokenLogprob:
    """A log-probability from protobuf."""
    return TokenLogprob(one.logprob, [(other.token_id, other.logprob) for other in one.alternatives])


def to_finish(reason: FinishReason) -> "sampling_pb2.FinishReason.ValueType":
    """A finish reason as protobuf."""
    return _TO_FINISH[reason]


def from_finish(number: "sampling_pb2.FinishReason.ValueType") -> FinishReason:
    """A finish reason from protobuf; one that a newer worker knows counts as a stop."""
    return _FROM_FINISH.get(number, FinishReason.STOP)
