"""A rollout in sentences."""

from google.protobuf.timestamp_pb2 import Timestamp
from serin.control.v1 import registry_pb2, rollout_pb2
from serin_cli.rollouts.shown import document, explanation, plain_line

RUNNING = rollout_pb2.Rollout(
    rollout_id="small-1",
    model="small",
    service=registry_pb2.SERVICE_KIND_WORKER,
    from_version="v1",
    to_version="v2",
    intent=rollout_pb2.ROLLOUT_INTENT_SAME,
    state=rollout_pb2.ROLLOUT_STATE_WAITING,
    steps=[rollout_pb2.RolloutStep(weight_percent=weight) for weight in (1, 25, 100)],
    weight_percent=1.0,
    exposed_session_count=38,
    exposed_request_count=1_412,
    reason="waiting: 1 canary request missing of 50",
    next="25 % after a verdict",
    started_at=Timestamp(seconds=1_000),
    started_by="ann",
    verdicts=[
        rollout_pb2.MetricVerdict(
            metric="errors",
            verdict=rollout_pb2.VERDICT_PROMOTE,
            difference=0.001,
            low=-0.002,
            high=0.004,
            sample_count=412,
            unit="share",
            note="UPSTREAM_UNAVAILABLE 3",
        ),
        rollout_pb2.MetricVerdict(metric="golden", note="nothing of the new version yet", unit="share"),
    ],
)


def test_one_that_runs_says_where_it_stands_and_what_it_waits_for():
    """State, step, weight, sessions, traffic, why, how long the warm-up lasts still, every interval with its note."""
    assert list(explanation(RUNNING, 1_075.0)) == [
        "small-1 (small, worker v1 -> v2, intent same) is waiting, started 1 min ago by ann.",
        "Step 1 of 3: 1 % of new sessions go to v2, the others to v1; 38 sessions saw v2 in 1,412 requests.",
        "Why: 1 canary request missing of 50.",
        "Warm-up: requests that begin in the next 45 s are served and not judged.",
        "  errors: good: +0.1 (-0.2..+0.4) points; UPSTREAM_UNAVAILABLE 3",
        "  golden: open: nothing of the new version yet",
        "Next: 25 % after a verdict.",
    ]
    assert not any("Warm-up" in line for line in explanation(RUNNING, 1_121.0))


def test_one_without_weight_says_where_all_traffic_is():
    """A canary that is away, or not ready yet."""
    away = rollout_pb2.Rollout()
    away.CopyFrom(RUNNING)
    away.weight_percent = 0.0
    assert "Step 1 of 3: no new session goes to v2, all go to v1; 38 sessions saw v2" in list(explanation(away, 2e3))[1]


def test_who_has_the_traffic_comes_before_the_weight():
    """The old version takes no calls, so nothing is shared by weight; what the reason says is not said twice."""
    alone = "v1 takes no calls: v2 has all of them"
    paused = rollout_pb2.Rollout()
    paused.CopyFrom(RUNNING)
    paused.state, paused.reason, paused.traffic = rollout_pb2.ROLLOUT_STATE_PAUSED, "paused: ann: lunch", alone
    for weight in (50.0, 0.0):
        paused.weight_percent = weight
        step, why = list(explanation(paused, 2e3))[1:3]
        assert (step, why) == (f"Step 1 of 3: {alone}; 38 sessions saw v2 in 1,412 requests.", "Why: ann: lunch.")
    assert document(paused)["traffic"] == alone
    assert plain_line(paused) == f"small-1 paused 0 % (38 sessions, 1412 requests): ann: lunch; {alone}"
    paused.state, paused.reason = rollout_pb2.ROLLOUT_STATE_WAITING, f"waiting: {alone}"
    assert plain_line(paused).endswith(f": {alone}")
    assert plain_line(paused).count(alone) == 1


def test_one_that_has_ended_says_how():
    """Its reason is whole."""
    ended = rollout_pb2.Rollout(state=rollout_pb2.ROLLOUT_STATE_ABORTED, reason="Aborted at 1 %: by ann: no.")
    assert list(explanation(ended, 1_001.0)) == ["Aborted at 1 %: by ann: no."]
