"""What must be true of a history: every request is answered once and rightly, or fails for a reason of its own.

A pure function of the history, the undisturbed answers and the gateway's lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from faults.history.record import Asked, History
from harness.streamed import Choice, Streamed

DEATHS = {"killed", "silent", "stalled"}
MAX_DEATHS = 2
SLACK_S = 1.0
"""A harm is noticed this long after its end, at most."""

Line = Mapping[str, Any]


def violations(history: History, right: Mapping[str, Streamed], lines: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """A sentence for each thing that is not as it must be."""
    for asked in history.requests:
        found = lines.get(asked.request_id, ())
        if len(found) != 1:
            yield f"{asked.request_id}: {len(found)} canonical lines"
            continue
        for what in (*_answer(asked, right[asked.question]), *_ending(asked, right[asked.question], found[0])):
            yield f"{asked.request_id} ({asked.question}): {what}"
        yield from _losses(asked, found[0], history)


def unexplained(history: History, lines: Mapping[str, Sequence[Line]]) -> int:
    """Times a worker was held for silent that nobody had stopped: the machine was busy elsewhere."""
    return sum(
        lost["cause"] == "silent" and not _was_harmed(history, "stop", lost["worker"], asked)
        for asked in history.requests
        for line in lines.get(asked.request_id, ())
        for lost in line["lost_workers"]
    )


def _answer(asked: Asked, right: Streamed) -> Iterator[str]:
    """What came is a beginning of the undisturbed answer: nothing is missing in between, nothing came twice."""
    for index, choice in asked.seen.choices.items():
        whole = right.choices[index]
        if not whole.text.startswith(choice.text):
            yield f"choice {index} said {choice.text!r:.200}, undisturbed {whole.text!r:.200}"
        if whole.logprobs[: len(choice.logprobs)] != choice.logprobs:
            yield f"choice {index} has other log-probabilities"


def _ending(asked: Asked, right: Streamed, line: Line) -> Iterator[str]:
    """It is complete, its client left, or it met as many deaths as make it suspect itself."""
    seen = asked.seen
    num_deaths = sum(lost["cause"] in DEATHS for lost in line["lost_workers"])
    if asked.has_left:
        return
    if seen.error is not None:
        if seen.is_done:
            yield f"both {seen.error} and [DONE]"
        if seen.error != "POISON_REQUEST" or num_deaths < MAX_DEATHS:
            yield f"failed with {seen.error} after {line['lost_workers']}"
        if line["reason"] != seen.error:
            yield f"the client was told {seen.error}, the line says {line['reason']}"
    elif not seen.is_done:
        yield "it ended without [DONE], and without an error"
    else:
        if list(map(_facts, seen.choices.values())) != list(map(_facts, right.choices.values())):
            yield f"it differs from the undisturbed answer: {seen.text!r:.200}"
        counted = (seen.usage or {}).get("completion_tokens")
        if counted != (right.usage or {}).get("completion_tokens") or counted != line["completion_tokens"]:
            yield f"{counted} tokens were counted, {line['completion_tokens']} in the line"


def _losses(asked: Asked, line: Line, history: History) -> Iterator[str]:
    for lost in line["lost_workers"]:
        if lost["cause"] not in ("killed", "silent", "unreachable", "refused"):
            yield f"{asked.request_id}: nothing was done that ends in {lost}"
        if lost["cause"] == "killed" and not _was_harmed(history, "kill", lost["worker"], asked):
            yield f"{asked.request_id}: nobody killed {lost}"


def _was_harmed(history: History, kind: str, worker: str, asked: Asked) -> bool:
    return any(
        (harm.kind, harm.worker) == (kind, worker)
        and harm.began_at <= asked.ended_at
        and harm.ended_at + SLACK_S >= asked.sent_at
        for harm in history.harms
    )


def _facts(choice: Choice) -> tuple[str, list[dict[str, Any]], str | None]:
    return choice.text, choice.logprobs, choice.finish_reason
