"""Requests that come again under one `Idempotency-Key`: they join the running answer or get the kept one.

An `IdempotencyDesk` says whose answer is made and whose is followed; a `Transcript` is one answer while it is made; an
`AnswerStore` keeps answers for all gateways.
"""

from serin_gateway.idempotency.desk import IdempotencyDesk
from serin_gateway.idempotency.fingerprint import fingerprint
from serin_gateway.idempotency.redis_store import RedisAnswers
from serin_gateway.idempotency.store import AnswersDown, AnswerStore, MemoryAnswers
from serin_gateway.idempotency.transcript import Transcript

__all__ = [
    "AnswerStore",
    "AnswersDown",
    "IdempotencyDesk",
    "MemoryAnswers",
    "RedisAnswers",
    "Transcript",
    "fingerprint",
]
