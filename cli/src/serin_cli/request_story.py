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
    asked = f", asked for as {record.asked}" if record.asked not in ("", record.model) else ""
    yield f"  asked     {record.operation} over {record.door}, model {record.model or '-'}{asked}"
    yield f"  by        tenant {record.tenant}, key {record.key_id}"
    if record.lane:
        yield f"  lane      {record.lane}"
    if record.route:
        yield f"  route     {route_in_words(record.route)}"
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


RULES = {
    "hint": "its caller said so",
    "prompt_matches": "the prompt matches a pattern",
    "prompt_longer": "the prompt is longer than the first model gets",
    "classifier": "the classifier says so of the prompt",
    "mean_logprob": "the first model was not sure of its answer",
    "min_logprob": "the first model was not sure of one of its tokens",
    "schema": "the first answer was not what was asked for",
    "unavailable": "the first model could not take it",
    "unsuited": "the first model cannot do what was asked",
    "failed": "the first answer was lost on the way",
    "too_large": "the first answer was more than may be held back",
    "late": "a rule held, and no time was left for the second model",
    "then_failed": "a rule held, and the second model could not answer",
}
"""Why a cascade decided as it did, in words."""


def route_in_words(route: str) -> str:
    """How a request came to its model: `smart:escalated:hint` and the like, one after the other."""
    return "; ".join(_part_in_words(part.split(":")) for part in route.split(", "))


def _part_in_words(part: list[str]) -> str:
    name, what, *why = part
    if what == "fallback":
        return f"{name} could not take it ({''.join(why)}), another model answered in its place"
    whose = "kept the first model's answer" if what == "kept" else "gave the second model's answer"
    reason = f": {RULES.get(why[0], why[0])}" if why else ": no rule held"
    return f"cascade {name} {whose}{reason}"


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
    model = f"{attempt.model}, " if attempt.model else ""
    thrown_away = "; not good enough: billed, and not given" if attempt.thrown_away else ""
    yield f"  attempt {number} {model}{lane}, {where}{ended}{thrown_away}"
    if attempt.num_prompt_tokens:
        reused = f" ({attempt.num_cached_tokens} reused)" if attempt.num_cached_tokens else ""
        yield f"            {attempt.num_prompt_tokens} prompt tokens{reused}, {attempt.num_answer_tokens} made"
    if attempt.first_token_s:
        rest = f", then {_duration(attempt.seconds_per_token)} a token" if attempt.seconds_per_token else ""
        yield f"            first token {_duration(attempt.first_token_s)} after it was placed{rest}"
    if attempt.num_placements > 1:
        yield f"            by {attempt.num_placements} workers, one after the other"
    if attempt.taken_over_by:
        other = attempt.taken_over_by[:12]
        yield f"            no worker of its lane could go on with it: lane {other}, of the same KV digest, did"


def _duration(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
