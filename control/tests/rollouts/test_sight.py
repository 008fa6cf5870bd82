"""What a rollout moves, whether it may, and what of its arms is there."""

from dataclasses import replace

import pytest
from control_builders import OTHER_VOCABULARY, instance, pair
from control_rollouts import spec, versions
from serin_control.errors import RolloutInvalid
from serin_control.instance import Service, State
from serin_control.plan import Share
from serin_control.rollouts.rollout import Arms, Strength
from serin_control.rollouts.sight import arms_for, look

V1 = (Share(versions("v1"), 100),)


def test_a_worker_moves_and_its_tokenizer_stays():
    """Only the services that are named change version; the old shares stay as they were."""
    everything = [*pair("v1"), instance("w2", version="v2")]
    assert arms_for(spec(), V1, everything) == Arms(V1, versions("v2", "v1"))


def test_a_set_moves_together():
    """`also` moves further services to the same version."""
    arms = arms_for(spec(also=(Service.TOKENIZER,)), V1, pair("v1") + pair("v2"))
    assert arms.canary == versions("v2", "v2")


def test_a_model_of_several_versions_keeps_their_proportions():
    """The heaviest is what the canary is compared with."""
    shares = (Share(versions("v1"), 10), Share(versions("v3"), 90), Share(versions("v4"), 0))
    arms = arms_for(spec(), shares, pair("v1") + pair("v2") + pair("v3"))
    assert [share.versions for share in arms.stable] == [versions("v3"), versions("v1")]
    assert arms.canary == versions("v2")
    assert arms.compared == versions("v3")


def test_a_baseline_is_the_old_version_in_processes_of_its_own():
    """Its files must be the same."""
    base = instance("w3", version="v1-baseline", artifact="30" + b"v1".hex())
    everything = [*pair("v1"), *pair("v2"), base]
    arms = arms_for(spec(baseline=True), V1, everything)
    assert arms.compared == versions("v1-baseline", "v1")
    other = replace(base, status=replace(base.status, digests=replace(base.status.digests, artifact="ee")))
    said = "baseline: worker v1-baseline runs other files than v1: .* `serin remove .*, then `serin add worker --model"
    with pytest.raises(RolloutInvalid, match=said):
        arms_for(spec(baseline=True), V1, [*pair("v1"), *pair("v2"), other])


@pytest.mark.parametrize(
    ("asked", "shares", "said"),
    [
        (
            {"to_version": "v9"},
            V1,
            "to_version: nobody announces worker v9 of small: accepted: v1, v2; `serin add worker --model small",
        ),
        ({"to_version": "v1"}, V1, "to_version: 'v1': small runs it already"),
        ({}, (*V1, Share(versions("v2"), 5)), "to_version: 'v2' has a share of the traffic by serin.yaml already"),
        ({}, (), "model: 'small' has no traffic to move"),
        (
            {"baseline": True},
            V1,
            "baseline: nobody announces worker v1-baseline of small, which the new version is compared with: "
            "`serin add worker --model small --version v1-baseline` (with",
        ),
    ],
)
def test_what_cannot_be_moved_is_refused(asked, shares, said):
    """With the key, its value and what would do."""
    with pytest.raises(RolloutInvalid) as refused:
        arms_for(spec(**asked), shares, [*pair("v1"), instance("w2", version="v2")])
    assert str(refused.value).startswith(said)


def test_both_arms_are_seen_with_what_they_bear():
    """Lanes, capacity in sequences, starts, vocabularies."""
    everything = [*pair("v1", num_workers=2), instance("w2", version="v2")]
    seen = look(spec(), Arms(V1, versions("v2")), everything)
    assert seen.able
    assert len({seen.stable_lane, seen.canary_lane}) == 2
    assert seen.canary == {Service.WORKER: Strength(1, 8)}
    assert seen.starts == frozenset({("w2", 0.0)})
    assert seen.same_vocabulary is True
    assert seen.shortage(5_000, {Service.WORKER: Strength(2, 16)}) == ""
    assert seen.shortage(10_000, {Service.WORKER: Strength(5, 40)}) == "capacity 1 of 5 workers"
    assert (
        look(spec(), Arms(V1, versions("v2")), pair("v1")).shortage(5_000, {Service.WORKER: Strength(4, 32)})
        == "capacity 0 of 2 workers"
    )


def test_a_canary_that_starts_drains_or_is_lost_takes_nothing():
    """It is seen, and says what it does."""
    arms = Arms(V1, versions("v2"))
    starting = instance("w2", version="v2", state=State.STARTING)
    starting = replace(starting, status=replace(starting.status, activity="loading weights", progress=0.4))
    seen = look(spec(), arms, [*pair("v1"), starting])
    assert (seen.able, seen.canary_lane, seen.activity) == (False, "", "loading weights 40%")
    for fields in ({"state": State.DRAINING}, {"suspect": True, "lost": True}):
        assert not look(spec(), arms, [*pair("v1"), instance("w2", version="v2", **fields)]).able
    doubtful = look(spec(), arms, [*pair("v1"), instance("w2", version="v2", suspect=True)])
    assert (doubtful.able, doubtful.silent) == (True, True)
    heard = [instance(f"w{n}", version="v2", suspect=n == 2) for n in (2, 3)]
    assert not look(spec(), arms, [*pair("v1"), *heard]).silent


def test_vocabularies_decide_what_can_be_compared():
    """A worker of another vocabulary forms no lane; a whole set of another one is another vocabulary."""
    foreign = instance("w2", version="v2", vocabulary=OTHER_VOCABULARY)
    assert look(spec(), Arms(V1, versions("v2")), [*pair("v1"), foreign]).is_mismatched
    assert not look(spec(), Arms(V1, versions("v2")), pair("v1")).is_mismatched
    whole = pair("v2", vocabulary=OTHER_VOCABULARY)
    seen = look(spec(also=(Service.TOKENIZER,)), Arms(V1, versions("v2", "v2")), pair("v1") + whole)
    assert (seen.is_mismatched, seen.same_vocabulary) == (False, False)
