"""Lanes and models: sticky, by weight, and moved at most once."""

import pytest
from serin_gateway.catalog import Catalog, MemoryCatalog, ServedModel
from serin_gateway.testing import small_lane
from serin_mesh.errors import MeshError, Reason

SESSIONS = [f"tenant\0session-{n}" for n in range(4000)]


def lanes_at(stable: int, canary: int) -> dict[str, str]:
    """Lane of every session at these weights."""
    model = ServedModel("m", lanes=[small_lane("stable", stable), small_lane("canary", canary)])
    return {session: model.choose_lane(session).lane for session in SESSIONS}


def test_a_session_stays_while_the_weights_stand():
    """The same lane again, whatever order the lanes are published in."""
    first = lanes_at(90, 10)
    model = ServedModel("m", lanes=[small_lane("canary", 10), small_lane("stable", 90)])
    assert {session: model.choose_lane(session).lane for session in SESSIONS} == first


@pytest.mark.parametrize(("stable", "canary"), [(99, 1), (75, 25), (50, 50), (1, 10_000)])
def test_shares_follow_the_weights(stable: int, canary: int):
    """Within four standard deviations."""
    share = canary / (stable + canary)
    moved = sum(lane == "canary" for lane in lanes_at(stable, canary).values()) / len(SESSIONS)
    assert abs(moved - share) <= 4 * (share * (1 - share) / len(SESSIONS)) ** 0.5 + 1e-9


def test_a_session_moves_at_most_once_toward_the_canary_and_back_only_on_abort():
    """Step by step up, each session changes lane at most once; an abort takes all of them back."""
    steps = [lanes_at(100 - weight, weight) for weight in (1, 5, 25, 50, 75, 99)]
    for session in SESSIONS:
        history = [step[session] for step in steps]
        assert history == sorted(history, reverse=True), "stable before canary"
    aborted = ServedModel("m", lanes=[small_lane("stable", 100), small_lane("canary", 0)])
    assert {aborted.choose_lane(session).lane for session in SESSIONS} == {"stable"}


def test_only_ready_lanes_are_chosen():
    """Without a worker or a tokenizer a lane gets nothing; without any lane the model is not ready."""
    empty = small_lane("empty", 100, workers=[])
    mute = small_lane("mute", 100, tokenizers=[])
    good = small_lane("good", 1)
    model = ServedModel("m", lanes=[empty, mute, good])
    assert {model.choose_lane(session).lane for session in SESSIONS[:50]} == {"good"}
    with pytest.raises(MeshError) as refusal:
        model.choose_lane("s", avoid=["good"])
    assert refusal.value.reason is Reason.NOT_READY
    assert refusal.value.metadata["retry_after_s"]
    assert not ServedModel("m", lanes=[empty]).is_ready


def test_a_pinned_lane_is_there_or_gone():
    """Never another one."""
    model = ServedModel("m", lanes=[small_lane("a"), small_lane("b", 0)])
    assert model.pinned_lane("b").lane == "b"
    with pytest.raises(MeshError) as refusal:
        model.pinned_lane("c")
    assert refusal.value.reason is Reason.LANE_GONE


def test_names_and_aliases_find_models():
    """A model's own name wins over another's alias."""
    catalog = Catalog([ServedModel("a", ["b", "x"]), ServedModel("b")])
    assert catalog.find("x").name == "a"
    assert catalog.find("b").name == "b"
    with pytest.raises(MeshError) as refusal:
        catalog.find("nope")
    assert refusal.value.reason is Reason.MODEL_NOT_FOUND
    assert refusal.value.metadata["parameter"] == "model"


async def test_waiting_for_a_change():
    """True with the next catalog, False when none comes."""
    source = MemoryCatalog()
    with pytest.raises(MeshError) as refusal:
        source.current()
    assert refusal.value.reason is Reason.NOT_READY
    assert not await source.changed(0.001)
