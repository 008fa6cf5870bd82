"""Binds a stored answer to the request that it answers, so that a cache that mixes answers up is found out.

A cache names its entries as it sees fit; the seal does not depend on that. It covers everything that makes two requests
the same, the cache group first, and the answer with the time at which it was given. Its key is the mesh secret's, so no
mistake of a cache can make one, though whoever holds the secret can. Knows protobuf, nothing about calls.
"""

import enum
import hashlib
import hmac
import struct
import time
from collections.abc import Callable, Mapping
from typing import Literal

from serin.cache.v1 import cache_pb2
from serin.generation.v1 import sampling_pb2
from serin_mesh.identity import digest_bytes

from serin_gateway.upstream.wire import from_segments

VERSION = 1
"""Grows when what is covered changes. What another version sealed is not known to be wrong, only not known."""

MAC_BYTES = 16
MAX_AGE_S = 604_800.0
"""Nothing is kept longer, by the contract."""
CLOCKS_S = 7200.0
"""So far clocks may be apart."""

_Defaulted = Literal["temperature", "top_p", "repetition_penalty", "choice_count"]
_DEFAULTS: Mapping[_Defaulted, float] = {"temperature": 1, "top_p": 1, "repetition_penalty": 1, "choice_count": 1}
"""What absent fields mean: said or left out, it is the same request."""


class Finding(enum.StrEnum):
    """What a seal says: FOREIGN: it is of another request, was changed, or is too old to be there."""

    GENUINE = "genuine"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


class AnswerSeal:
    """Seals answers and checks seals.

    Args:
        mesh_secret: what the key derives from; the same at every gateway.
        clock: Unix time in seconds.
    """

    def __init__(self, mesh_secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._secret = hmac.new(mesh_secret, b"serin.answer.seal", hashlib.sha256).digest()
        self._clock = clock

    def seal(self, key: cache_pb2.AnswerKey, answer: cache_pb2.StoredAnswer) -> None:
        """Put a seal on an answer to a request."""
        answer.seal = bytes([VERSION]) + self._mac(key, answer)

    def check(self, key: cache_pb2.AnswerKey, answer: cache_pb2.StoredAnswer) -> Finding:
        """Whether an answer is the one that was given to an equal request."""
        if answer.seal[:1] != bytes([VERSION]):
            return Finding.UNKNOWN
        if not hmac.compare_digest(answer.seal[1:], self._mac(key, answer)):
            return Finding.FOREIGN
        return Finding.FOREIGN if self._clock() - answer.created_at > MAX_AGE_S + CLOCKS_S else Finding.GENUINE

    def _mac(self, key: cache_pb2.AnswerKey, answer: cache_pb2.StoredAnswer) -> bytes:
        bare = cache_pb2.StoredAnswer()
        bare.CopyFrom(answer)
        bare.ClearField("seal")
        parts = (*_asked(key), bare.SerializeToString(deterministic=True))
        return hmac.new(self._secret, digest_bytes(*parts), hashlib.sha256).digest()[:MAC_BYTES]


def _asked(key: cache_pb2.AnswerKey) -> list[bytes]:
    """What makes a request itself, the same for requests that the cache may take for the same."""
    sampling = sampling_pb2.SamplingParameters()
    sampling.CopyFrom(key.sampling)
    if sampling.HasField("temperature") and sampling.temperature == 0:
        sampling.ClearField("seed")  # nothing is drawn
    for name, value in _DEFAULTS.items():
        if getattr(sampling, name) == value:
            sampling.ClearField(name)
    stop_ids = sorted(set(sampling.stop_token_ids))
    del sampling.stop_token_ids[:]
    sampling.stop_token_ids.extend(stop_ids)
    prompt = from_segments(key.prompt)
    return [
        key.cache_group.encode(),
        key.cache_salt.encode(),
        key.kv_digest.encode(),
        key.vocabulary_digest.encode(),
        struct.pack(f"<{len(prompt)}I", *prompt),
        sampling.SerializeToString(deterministic=True),
        key.grammar.SerializeToString(deterministic=True),
        *(stop.encode() for stop in key.stop_strings),
    ]
