"""One finished request as it is remembered: where it went, how long each verb took, why it was refused.

A receipt as JSON: no text, no ids, no key. Read by the command line too. Knows nothing about where it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serin_gateway.receipt import MAX_MESSAGE, Receipt


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt; times in seconds, 0: did not happen; ``taken_over_by``: as in its receipt."""

    lane: str
    worker: str = ""
    cluster: str = ""
    reason: str = "ok"
    first_token_s: float = 0.0
    seconds_per_token: float = 0.0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_answer_tokens: int = 0
    num_placements: int = 0
    model: str = ""
    thrown_away: bool = False
    taken_over_by: str = ""


@dataclass(frozen=True, slots=True)
class LostRecord:
    """A worker that let go of it before the answer was complete; a pause of 0: the answer had not begun, or ended."""

    worker: str
    cause: str
    pause_s: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """What guards did with what one detector found in one direction; ``kinds``: how many of which."""

    detector: str
    direction: str
    action: str
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request.

    Attributes:
        at: when it ended, Unix seconds.
        message: the sentence of the error that ended it; empty when none did.
        session: its session as a number.
        verbs: seconds by verb.
        asked: the name that was asked for; ``route``: how it came to the model, where that was decided on the way.
    """

    request_id: str
    at: float
    door: str = ""
    operation: str = ""
    tenant: str = ""
    key_id: str = ""
    model: str = ""
    lane: str = ""
    session: int = 0
    reason: str = "ok"
    message: str = ""
    cached_answer: bool = False
    duration_s: float = 0.0
    verbs: Mapping[str, float] = field(default_factory=dict)
    attempts: Sequence[AttemptRecord] = ()
    lost_workers: Sequence[LostRecord] = ()
    asked: str = ""
    route: str = ""
    guarded: Sequence[GuardRecord] = ()

    @classmethod
    def of(cls, receipt: Receipt, session: int, at: float) -> "RequestRecord":
        """The record of a receipt that is complete."""
        return cls(
            request_id=receipt.request_id,
            at=round(at, 3),
            door=receipt.door,
            operation=receipt.operation,
            tenant=receipt.tenant,
            key_id=receipt.key_id,
            model=receipt.model,
            lane=receipt.lane,
            session=session,
            reason=receipt.reason,
            message=receipt.message[:MAX_MESSAGE],
            cached_answer=receipt.cached_answer,
            duration_s=round(receipt.duration_s, 6),
            verbs={verb: round(seconds, 6) for verb, seconds in receipt.verbs.items()},
            attempts=tuple(
                AttemptRecord(
                    one.lane,
                    one.worker,
                    one.cluster,
                    one.reason,
                    round(one.first_token_s, 6),
                    round(one.seconds_per_token, 6),
                    one.num_prompt_tokens,
                    one.num_cached_tokens,
                    one.num_answer_tokens,
                    one.num_placements,
                    one.model,
                    one.thrown_away,
                    one.taken_over_by,
                )
                for one in receipt.attempts
            ),
            lost_workers=tuple(
                LostRecord(one.worker, one.cause, round(one.pause_s or 0.0, 6), one.message)
                for one in receipt.lost_workers
            ),
            asked=receipt.asked,
            route=receipt.route,
            guarded=tuple(
                GuardRecord(one.detector, one.direction, one.action, one.kinds) for one in receipt.guarded or ()
            ),
        )

    def to_json(self) -> str:
        """The record as stored."""
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "RequestRecord":
        """Read a stored record; members that a newer version wrote are ignored.

        Raises:
            ValueError: not a record.
        """
        try:
            stored: Mapping[str, Any] = orjson.loads(text)
            known = _known(cls, stored)
            for name, kind in (("attempts", AttemptRecord), ("lost_workers", LostRecord), ("guarded", GuardRecord)):
                known[name] = tuple(kind(**_known(kind, one)) for one in known.get(name, ()))
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a request's record: {error}") from error


def _known(kind: type[Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name in kind.__dataclass_fields__}
