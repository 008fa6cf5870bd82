"""What became of a request, in words."""

from dataclasses import replace

from serin_cli.request_story import RULES, story
from serin_gateway.cascades.cascade import Rule
from serin_gateway.observing.record import AttemptRecord, GuardRecord, LostRecord, RequestRecord

ANSWERED = RequestRecord(
    "req-1",
    1_700_000_000.0,
    door="rest",
    operation="chat.completions",
    tenant="acme",
    key_id="key_1",
    model="small",
    lane="ab" * 16,
    duration_s=1.25,
    verbs={"generate": 1.2, "authenticate": 0.0005, "admit": 0.002},
    attempts=(
        AttemptRecord("cd" * 16, "w9", "worker.small@v2", "UPSTREAM_UNAVAILABLE", num_placements=1),
        AttemptRecord("ab" * 16, "w1", "worker.small@v1", "ok", 0.08, 0.0125, 12, 8, 90, 3),
    ),
    lost_workers=(LostRecord("w7", "killed", 0.12, "Socket closed"), LostRecord("w8", "draining")),
)


def test_an_answered_request():
    """Who, where, how fast, by which attempts; verbs in their order."""
    assert list(story(ANSWERED)) == [
        "req-1: answered",
        "  when      2023-11-14 22:13:20 UTC, after 1.25 s",
        "  asked     chat.completions over rest, model small",
        "  by        tenant acme, key key_1",
        f"  lane      {'ab' * 16}",
        "  attempt 1 lane cdcdcdcdcdcd, worker w9 (worker.small@v2): UPSTREAM_UNAVAILABLE",
        "  attempt 2 lane abababababab, worker w1 (worker.small@v1)",
        "            12 prompt tokens (8 reused), 90 made",
        "            first token 80.0 ms after it was placed, then 12.5 ms a token",
        "            by 3 workers, one after the other",
        "  lost      worker w7: killed (Socket closed); it went on after 120.0 ms",
        "  lost      worker w8: draining",
        "  time      authenticate 500 us, admit 2.0 ms, generate 1.20 s",
    ]


def test_an_answer_that_changed_its_lane():
    """The lane that it began on, the worker that ended it, and why that is another lane's."""
    attempt = AttemptRecord("ab" * 16, "w2", "worker.small@v1", num_placements=2, taken_over_by="ef" * 16)
    lines = list(story(replace(ANSWERED, attempts=(attempt,), lost_workers=())))
    assert lines[5:8] == [
        "  attempt 1 lane abababababab, worker w2 (worker.small@v1)",
        "            by 2 workers, one after the other",
        "            no worker of its lane could go on with it: lane efefefefefef, of the same KV digest, did",
    ]


def test_a_request_that_was_routed():
    """What was asked for, what was decided on the way and why, whose answer was thrown away."""
    record = replace(
        ANSWERED,
        asked="smart",
        route="smart:escalated:mean_logprob, small:fallback:QUEUE_FULL",
        attempts=(AttemptRecord("ab" * 16, "w1", "worker.mini@v1", model="mini", thrown_away=True),),
        lost_workers=(),
    )
    lines = list(story(record))
    assert lines[2] == "  asked     chat.completions over rest, model small, asked for as smart"
    assert lines[5] == (
        "  route     cascade smart gave the second model's answer: the first model was not sure of its answer; small "
        "could not take it (QUEUE_FULL), another model answered in its place"
    )
    assert lines[6].endswith("worker w1 (worker.mini@v1); not good enough: billed, and not given")
    assert set(RULES) == {rule.value for rule in Rule} - {"none"}


def test_a_refused_request():
    """The reason and its sentence come first; there was no lane and no attempt."""
    record = RequestRecord(
        "req-2", 0.0, "rest", "unknown", "acme", "key_1", reason="RATE_LIMITED", message="the key's limit is reached"
    )
    lines = list(story(record))
    assert lines[0] == "req-2: refused: RATE_LIMITED: the key's limit is reached"
    assert len(lines) == 4


def test_what_guards_did():
    """A line for each detector and direction."""
    guarded = (GuardRecord("pii", "input", "mask", {"EMAIL_ADDRESS": 2, "US_SSN": 1}),)
    lines = list(story(RequestRecord("r", 0.0, guarded=guarded)))
    assert "  guard     pii, input: mask (EMAIL_ADDRESS 2, US_SSN 1)" in lines


def test_other_ends():
    """A request that had a worker failed; one whose client left was cancelled; a stored answer asked nobody."""
    placed = (AttemptRecord("a", num_placements=1),)
    ends = [
        next(story(RequestRecord("r", 0.0, reason=reason, attempts=placed, message="m")))
        for reason in ("LANE_LOST", "CANCELLED")
    ]
    assert ends == ["r: failed: LANE_LOST: m", "r: cancelled: the client left before the answer was complete"]
    stored = RequestRecord("r", 0.0, cached_answer=True, attempts=(AttemptRecord("a"),))
    assert "  answer    a stored one: no worker was asked" in list(story(stored))
