"""Cascades and tenants' names as gateways are told them. Knows nothing about calls."""

from collections.abc import Mapping

from serin.control.v1 import routing_pb2

from serin_control.config import CascadeConfig
from serin_control.plan import Naming


def cascade_messages(naming: Naming) -> list[routing_pb2.Cascade]:
    """All cascades, ordered by name."""
    return [_cascade(name, one) for name, one in sorted(naming.cascades.items())]


def tenant_messages(naming: Naming) -> list[routing_pb2.TenantRouting]:
    """All organizations and projects that mean something of their own by names."""
    messages = []
    for organization, tenant in sorted(naming.tenants.items()):
        messages.append(_tenant(organization, "", tenant.aliases, tenant.fallbacks))
        for project, own in sorted(tenant.projects.items()):
            messages.append(_tenant(organization, project, own.aliases, own.fallbacks))
    return messages


def _cascade(name: str, declared: CascadeConfig) -> routing_pb2.Cascade:
    rules = declared.escalate_when
    classifier = rules.classifier
    return routing_pb2.Cascade(
        name=name,
        first=declared.first,
        then=declared.then,
        rules=routing_pb2.EscalationRules(
            mean_logprob_below=rules.mean_logprob_below,
            min_logprob_below=rules.min_logprob_below,
            schema_fails=rules.schema_fails,
            prompt_patterns=rules.prompt_matches,
            prompt_longer_than=rules.prompt_longer_than or 0,
            classifier=classifier.weights if classifier else "",
            classifier_above=classifier.above if classifier else 0.0,
            hint=rules.hint,
        ),
    )


def _tenant(
    organization: str, project: str, aliases: Mapping[str, str], fallbacks: bool | None
) -> routing_pb2.TenantRouting:
    refuse = None if fallbacks is None else not fallbacks
    return routing_pb2.TenantRouting(
        organization=organization, project=project, aliases=aliases, refuse_fallbacks=refuse
    )
