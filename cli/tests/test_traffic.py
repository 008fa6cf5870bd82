"""Whether a version carries traffic, by the lanes that are published."""

import pytest
from serin.control.v1 import lane_pb2, registry_pb2, rollout_pb2
from serin_cli.local.additions import Which
from serin_cli.local.traffic import Traffic, traffic_of

TOKENIZER, WORKER = registry_pb2.SERVICE_KIND_TOKENIZER, registry_pb2.SERVICE_KIND_WORKER


def lane(tokenizer: str, worker: str, weight: int) -> lane_pb2.Lane:
    """A lane of one tokenizer and one worker version."""
    members = [
        lane_pb2.LaneMember(service=TOKENIZER, version=tokenizer),
        lane_pb2.LaneMember(service=WORKER, version=worker),
    ]
    return lane_pb2.Lane(lane=f"{tokenizer}+{worker}", weight=weight, members=members)


def published(*lanes: lane_pb2.Lane) -> lane_pb2.WatchLanesResponse:
    """One model with these lanes."""
    return lane_pb2.WatchLanesResponse(models=[lane_pb2.Model(name="small", lanes=lanes)])


def test_a_version_with_a_share_of_the_sessions_carries_traffic():
    """The share is that of all its lanes together: a tokenizer serves several workers' lanes."""
    lanes = published(lane("v1", "v1", 9_500), lane("v1", "v2", 500))
    assert traffic_of(Which("worker", "small", "v2"), lanes).reason == "carries 5.00% of the new sessions of small"
    assert traffic_of(Which("tokenizer", "small", "v1"), lanes).reason.startswith("carries 100.00% ")


def test_a_version_without_a_lane_carries_nothing():
    """What only runs, or belongs to a model that nobody publishes, may go."""
    lanes = published(lane("v1", "v1", 10_000))
    assert traffic_of(Which("worker", "small", "v2"), lanes) == Traffic()
    assert traffic_of(Which("tokenizer", "other", "v1"), lanes) == Traffic()


def test_a_lane_that_is_only_kept_may_go_with_a_word():
    """The least weight keeps a lane for a rollback; going without it is possible and said."""
    traffic = traffic_of(Which("worker", "small", "v1"), published(lane("v1", "v2", 9_999), lane("v1", "v1", 1)))
    assert traffic.reason == ""
    assert traffic.note == "its lane had 1 of 10000 of the sessions of small: kept for a rollback"


def test_a_cache_carries_the_sessions_of_the_lanes_that_name_it():
    """Of whichever model; one that only lanes without a cache of their own share is in none of them."""
    own = lane("v1", "v1", 9_999)
    own.members.add(service=registry_pb2.SERVICE_KIND_CACHE, version="v2")
    lanes = published(own, lane("v1", "v1", 1))
    assert traffic_of(Which("cache", "", "v2"), lanes).reason == "carries 99.99% of the new sessions of small"
    assert traffic_of(Which("cache", "", "v1"), lanes) == Traffic()
    assert traffic_of(Which("gateway", "", "v2"), lanes) == Traffic()


@pytest.mark.parametrize("state", [rollout_pb2.ROLLOUT_STATE_WAITING, rollout_pb2.ROLLOUT_STATE_PAUSED])
def test_both_sides_of_a_rollout_stay(state):
    """What is compared is not taken away, also before it has traffic and while it is paused; the rollout is named."""
    rollout = rollout_pb2.Rollout(
        rollout_id="small-1", model="small", service=WORKER, from_version="v1", to_version="v2", state=state
    )
    lanes = published(lane("v1", "v1", 9_999), lane("v1", "v2", 1))
    for version in ("v1", "v2"):
        traffic = traffic_of(Which("worker", "small", version), lanes, [rollout])
        assert traffic.reason == "is one side of rollout small-1"
        assert traffic.remedy == "`serin rollout abort small-1` ends it"
    for other in (Which("tokenizer", "small", "v2"), Which("worker", "other", "v2"), Which("worker", "small", "v3")):
        assert traffic_of(other, lanes, [rollout]) == Traffic()
    rollout.state = rollout_pb2.ROLLOUT_STATE_ABORTED
    assert traffic_of(Which("worker", "small", "v2"), lanes, [rollout]).reason == ""


def test_a_rollout_of_a_service_of_all_models_counts_too():
    """A cache version that a rollout judges stays, whichever model it is judged on."""
    rollout = rollout_pb2.Rollout(
        rollout_id="small-2",
        model="small",
        service=registry_pb2.SERVICE_KIND_CACHE,
        from_version="v1",
        to_version="v2",
        state=rollout_pb2.ROLLOUT_STATE_RUNNING,
    )
    assert "rollout small-2" in traffic_of(Which("cache", "", "v2"), published(), [rollout]).reason
