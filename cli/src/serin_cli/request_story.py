"""A request's record in plain words: how it ended, where it went, where its time went.

Knows nothing about where records are kept.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from serin_gateway.observing.record import AttemptRecord, RequestRecord

VERBS = ("authenticate", "admit", "guard", "route", "tokenize", "recall", "place", "generate", "settle")


def story(record: RequestRecord) -> Iterator[str]:
    """Its lines."""
    when = datetime.fromtimestamp(record.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"{record.request_id}: {_end(record)}"
    yield f"  when      {when}, after {_duration(record.duration_s)}"
    yield f"  asked     {record.operation} over {record.door}, model {record.model or '-'}"
    yield f"  by        tenant {record.tenant}, key {record.key_id}"
    if record.lane:
        yield f"  lane      {record.lane}"
    for one in record.guarded:
        kinds = ", ".join(f"{kind} {count}" for kind, count in one.kinds.items())
        yield f"  guard     {one.detector}, {one.direction}: {one.action} ({kinds})"
    if record.cached_answer:
        yield "  answer    a stored one: no worker was asked"
    for number, attempt in enumerate(record.attempts, start=1):
        yield from _attempt(number, attempt)
    for lost in record.lost_workers:
        said = f" ({lost.message})" if lost.message else ""
        pause = f"; it went on after {_duration(lost.pause_s)}" if lost.pause_s else ""
        yield f"  lost      worker {lost.worker}: {lost.cause}{said}{pause}"
    spent = [(verb, record.verbs[verb]) for verb in VERBS if verb in record.verbs]
    if spent:
        yield f"  time      {', '.join(f'{verb} {_duration(seconds)}' for verb, seconds in spent)}"


def _end(record: RequestRecord) -> str:
    if record.reason == "ok":
        return "answered"
    if record.reason == "CANCELLED":
        return "cancelled: the client left before the answer was complete"
    what = "failed" if any(attempt.num_placements for attempt in record.attempts) else "refused"
    return f"{what}: {record.reason}" + (f": {record.message}" if record.message else "")


def _attempt(number: int, attempt: AttemptRecord) -> Iterator[str]:
    where = f"worker {attempt.worker} ({attempt.cluster})" if attempt.worker else "no worker"
    lane = f"lane {attempt.lane[:12]}" if attempt.lane else "no lane"
    ended = "" if attempt.reason == "ok" else f": {attempt.reason}"
    yield f"  attempt {number} {lane}, {where}{ended}"
    if attempt.num_prompt_tokens:
        reused = f" ({attempt.num_cached_tokens} reused)" if attempt.num_cached_tokens else ""
        yield f"            {attempt.num_prompt_tokens} prompt tokens{reused}, {attempt.num_answer_tokens} made"
    if attempt.first_token_s:
        rest = f", then {_duration(attempt.seconds_per_token)} a token" if attempt.seconds_per_token else ""
        yield f"            first token {_duration(attempt.first_token_s)} after it was placed{rest}"
    if attempt.num_placements > 1:
        yield f"            by {attempt.num_placements} workers, one after the other"


def _duration(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
