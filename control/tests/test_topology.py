"""The topology: what is declared and runs, what is remembered, what is wrong."""

from dataclasses import replace

from control_builders import instance, pair
from serin_control.config import parse_config
from serin_control.instance import Service, State
from serin_control.plan import declared_plan
from serin_control.topology import draw

PLAN = declared_plan(
    parse_config("""
models:
  small: {path: x, aliases: [s], default_max_tokens: 7}
  other: {path: y}
limits: {tokens_per_minute: 5}
gateway: {max_body_bytes: 2048, allow_anonymous: true, responses: {kept_days: 3}}
""")
)


def test_declared_models_are_there_by_name_with_what_runs():
    """A model that nothing serves yet is there without lanes."""
    drawn = draw(PLAN, pair("v1"), {})
    other, small = drawn.topology.models
    assert (other.plan.name, other.lanes) == ("other", ())
    assert (small.plan.aliases, small.plan.default_max_tokens, len(small.lanes)) == (("s",), 7, 1)
    assert drawn.topology.policy.limits.tokens_per_minute == 5
    assert (drawn.topology.policy.max_body_bytes, drawn.topology.policy.allow_anonymous) == (2048, True)
    responses = drawn.topology.policy.responses
    assert (responses.kept_days, responses.project_bytes) == (3, 67_108_864)
    assert not drawn.topology.complete
    whole = draw(PLAN, pair("v1") + pair("v1", model="other"), {}).topology
    assert whole.complete
    versions = whole.models[0].lanes[0].versions
    drains = {name: replace(model, draining=(versions,)) for name, model in PLAN.models.items()}
    lost = pair("v1", suspect=True, lost=True) + pair("v1", model="other", suspect=True, lost=True)
    assert not draw(replace(PLAN, models=drains), lost, {}).topology.complete, "nobody would have a new session"


def test_registering_again_changes_no_topology():
    """A control plane that restarts is invisible: its instances registered later, and callers are told nothing."""
    later = [replace(one, registered_at=one.registered_at + 60) for one in pair("v1")]
    assert draw(PLAN, later, {}).topology == draw(PLAN, pair("v1"), {}).topology


def test_services_of_all_models_are_there():
    """Caches and gateways that serve; those that start do not."""
    everything = [
        instance("c", Service.CACHE),
        instance("g", Service.GATEWAY),
        instance("h", Service.GATEWAY, state=State.STARTING),
    ]
    topology = draw(PLAN, everything, {}).topology
    assert [one.registration.instance for one in topology.caches + topology.gateways] == ["c", "g"]


def test_undeclared_models_get_no_traffic_and_somebody_is_told():
    """Announcing is not declaring."""
    drawn = draw(PLAN, pair("v1", model="stray"), {})
    assert all(model.plan.name != "stray" for model in drawn.topology.models)
    assert drawn.alarms == {
        "undeclared/stray": "model stray runs but is not declared in serin.yaml: it gets no traffic"
    }


def test_what_is_kept_lost_is_an_alarm():
    """A cluster that fell silent is named with its instances."""
    drawn = draw(PLAN, pair("v1", suspect=True, lost=True), {})
    assert "worker.small@v1: w0-small-v1 fell silent together" in drawn.alarms["lost/worker.small@v1"]
