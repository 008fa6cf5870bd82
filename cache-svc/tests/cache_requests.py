"""Requests to the cache as tests make them."""

from serin.cache.v1 import cache_pb2
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin_cache_svc.asked import Asked, Prompt
from worker_twin import BLOCK, KV

IDS = list(range(3 * BLOCK))
ANSWER = cache_pb2.StoredAnswer(
    choices=[cache_pb2.StoredChoice(token_ids=[4, 5], finish_reason=sampling_pb2.FINISH_REASON_STOP)], created_at=1.5
)
ASKED = Asked("acme", "", "kv", "v", Prompt((1, 2, 3)), {"temperature": 0, "seed": None}, 1, (0, ""), ())


def key(**changes):
    """A request; changes by field name, those of sampling too."""
    fields = {
        "cache_group": "acme",
        "kv_digest": "kv",
        "vocabulary_digest": "v",
        "prompt": [tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1, 2, 3]))],
    }
    sampling = {"temperature": 0.0}
    for name, value in changes.items():
        where = sampling if name in sampling_pb2.SamplingParameters.DESCRIPTOR.fields_by_name else fields
        where[name] = value
    return cache_pb2.AnswerKey(**fields, sampling=sampling_pb2.SamplingParameters(**sampling))


def prompt(ids):
    """A prompt of ids."""
    return [tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=ids))]


def recall(ids=IDS, group="acme", allow_answer=False):
    """A recall."""
    request = key(prompt=prompt(ids), cache_group=group, kv_digest=KV)
    return cache_pb2.RecallRequest(key=request, allow_answer=allow_answer, model="small", block_size=BLOCK)


def put(ids=IDS, group="acme", answer=ANSWER, **changes):
    """An answer to store."""
    request = key(prompt=prompt(ids), cache_group=group, kv_digest=KV, **changes)
    return cache_pb2.PutAnswerRequest(key=request, answer=answer)
