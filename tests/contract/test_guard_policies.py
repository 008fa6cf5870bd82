"""What `serin.yaml` says about guards is what gateways carry out: declared, published, translated."""

from typing import get_args

from serin.control.v1 import config_pb2, lane_pb2
from serin_control.config import parse_config
from serin_control.config.declaration import Country, GuardAction, GuardPolicyConfig
from serin_control.plan import declared_plan
from serin_control.services import messages
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.personal_kinds import COUNTRIES
from serin_gateway.guards.policy import Action, GuardPolicy
from serin_gateway.upstream.lanes import to_catalog

DECLARED = """
models: {small: {path: x}}
guards:
  policies:
    strict:
      pii: {input: mask, output: refuse, countries: [us, de]}
      blocked: {input: refuse, terms: [plum, project nightfall]}
      unicode: {input: mask}
    open:
      injection: {input: count}
  default: open
  organizations: {acme: strict}
  projects: {web: open}
  keys: {key_1: strict}
"""


def test_a_declared_policy_reaches_the_gateway():
    """Every detector, action, country and term; who has which."""
    policy = messages._policy(declared_plan(parse_config(DECLARED)).policy)
    guards = to_catalog(lane_pb2.WatchLanesResponse(policy=policy)).policy.guards
    strict = GuardPolicy(
        "strict",
        (
            (DetectorName.PII, Action.MASK),
            (DetectorName.BLOCKED, Action.REFUSE),
            (DetectorName.UNICODE, Action.MASK),
        ),
        ((DetectorName.PII, Action.REFUSE),),
        ("us", "de"),
        ("plum", "project nightfall"),
    )
    loose = GuardPolicy("open", ((DetectorName.INJECTION, Action.COUNT),))
    assert guards.default == loose
    assert (guards.organizations, guards.projects, guards.keys) == ({"acme": strict}, {"web": loose}, {"key_1": strict})


def test_both_know_the_same():
    """Detectors, actions and countries are named once in each room; they are the same."""
    assert set(GuardPolicyConfig.model_fields) == set(DetectorName) - {DetectorName.UNKNOWN}
    assert set(get_args(GuardAction)) == {"none", *Action}
    assert set(get_args(Country)) == set(COUNTRIES)


def test_what_a_gateway_does_not_know_fails_closed():
    """A newer control plane's detector cannot look, and an action that is not known is the strictest."""
    rule = config_pb2.GuardRule(detector="mind_reading", action="forget")
    policies = config_pb2.GuardPolicies(
        policies=[config_pb2.GuardPolicy(name="p", input_rules=[rule])], default_policy="p"
    )
    message = config_pb2.GatewayPolicy(guards=policies)
    found = to_catalog(lane_pb2.WatchLanesResponse(policy=message)).policy.guards.default
    assert found is not None
    assert found.inputs == ((DetectorName.UNKNOWN, Action.REFUSE),)
