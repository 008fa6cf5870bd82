"""Protobuf requests to the cache's own values, checked. Knows the contract and nothing about what is done with them."""

from collections.abc import Sequence

from serin.cache.v1 import cache_pb2
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin_mesh.errors import MeshError, Reason
from serin_mesh.identity import DIGEST_BYTES, MediaSpan

from serin_cache_svc.asked import Asked, Prompt

MAX_SALT_BYTES = 128
PLACEHOLDER = 0
DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "choice_count": 1}
"""What absent fields mean; those that are not here mean nothing at all when they are absent."""


def read_key(key: cache_pb2.AnswerKey) -> Asked:
    """Read what makes a request itself.

    Raises:
        MeshError: a field is outside what is accepted.
    """
    if len(key.cache_salt.encode()) > MAX_SALT_BYTES:
        raise _invalid("key.cache_salt", f"{len(key.cache_salt.encode())} bytes: accepted: at most {MAX_SALT_BYTES}")
    sampling = _sampling(key.sampling)
    return Asked(
        cache_group=key.cache_group,
        cache_salt=key.cache_salt,
        kv_digest=key.kv_digest,
        vocabulary_digest=key.vocabulary_digest,
        prompt=_prompt(key.prompt),
        sampling=sampling,
        num_choices=key.sampling.choice_count if key.sampling.HasField("choice_count") else 1,
        grammar=(key.grammar.kind, key.grammar.text),
        stop_strings=tuple(key.stop_strings),
    )


def check_answer(asked: Asked, answer: cache_pb2.StoredAnswer) -> None:
    """Refuse an answer that does not fit its request.

    Raises:
        MeshError: it does not.
    """
    if len(answer.choices) != asked.num_choices:
        raise _invalid("answer.choices", f"{len(answer.choices)} of them: accepted: {asked.num_choices}, as asked for")
    for at, choice in enumerate(answer.choices):
        if choice.finish_reason == sampling_pb2.FINISH_REASON_UNSPECIFIED:
            raise _invalid(f"answer.choices[{at}].finish_reason", "not set: accepted: why the choice ended")


def _sampling(parameters: sampling_pb2.SamplingParameters) -> dict[str, object]:
    """Every field by name, so that a field the contract gains later is never overlooked."""
    values: dict[str, object] = {}
    present = {field.name for field, _ in parameters.ListFields()}
    for field in parameters.DESCRIPTOR.fields:
        value = getattr(parameters, field.name)
        if field.name == "logit_bias":
            values[field.name] = sorted(value.items())
        elif field.name == "stop_token_ids":
            values[field.name] = sorted(set(value))
        elif field.has_presence and field.name not in present:
            values[field.name] = DEFAULTS.get(field.name)
        else:
            values[field.name] = value
    return values


def _prompt(segments: Sequence[tokens_pb2.Segment]) -> Prompt:
    token_ids: list[int] = []
    media: list[tuple[int, MediaSpan]] = []
    for at, segment in enumerate(segments):
        match segment.WhichOneof("content"):
            case "tokens":
                token_ids.extend(segment.tokens.token_ids)
            case "media":
                run = segment.media
                if len(run.digest) != DIGEST_BYTES or run.length < 1:
                    accepted = f"accepted: a digest of {DIGEST_BYTES} bytes, a length of 1 or more"
                    raise _invalid(f"key.prompt[{at}].media", accepted)
                media.append((len(token_ids), MediaSpan(run.digest, run.kind, run.length)))
                token_ids.extend([PLACEHOLDER] * run.length)
            case _:
                raise _invalid(f"key.prompt[{at}]", "empty: accepted: tokens or media")
    if not token_ids:
        raise _invalid("key.prompt", "empty: accepted: at least one position")
    return Prompt(tuple(token_ids), tuple(media))


def _invalid(parameter: str, sentence: str) -> MeshError:
    return MeshError(Reason.PARAMETER_INVALID, f"{parameter}: {sentence}", parameter=parameter)
