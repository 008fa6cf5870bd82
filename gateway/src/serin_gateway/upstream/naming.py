"""Cascades and tenants' names as the control plane publishes them. Knows nothing about what becomes of them."""

from serin.control.v1 import routing_pb2
from serin_mesh.prompt_classifier import PromptClassifier

from serin_gateway.cascades.cascade import Cascade, EscalationRules
from serin_gateway.catalog import TenantNames


def to_cascade(one: routing_pb2.Cascade) -> Cascade:
    """A cascade. A classifier of a format that only a newer version reads is left out: its rule never holds."""
    rules = one.rules
    return Cascade(
        one.name,
        one.first,
        one.then,
        EscalationRules(
            rules.mean_logprob_below if rules.HasField("mean_logprob_below") else None,
            rules.min_logprob_below if rules.HasField("min_logprob_below") else None,
            rules.schema_fails,
            tuple(rules.prompt_patterns),
            rules.prompt_longer_than,
            _classifier(rules.classifier),
            rules.classifier_above,
            rules.hint,
        ),
    )


def to_tenant(one: routing_pb2.TenantRouting) -> TenantNames:
    """What a tenant means by names."""
    refuse = one.refuse_fallbacks if one.HasField("refuse_fallbacks") else None
    return TenantNames(dict(one.aliases), refuse)


def _classifier(text: str) -> PromptClassifier | None:
    try:
        return PromptClassifier.from_text(text) if text else None
    except ValueError:
        return None
