"""Names as the control plane publishes them become the catalog's; metrics tell decisions and all billed tokens."""

from prometheus_client import CollectorRegistry
from routed import answer, asking, house_of, make, model, sure
from serin.control.v1 import lane_pb2, routing_pb2
from serin_gateway.cascades.cascade import Cascade, EscalationRules
from serin_gateway.catalog import TenantNames
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.testing import saying
from serin_gateway.upstream.lanes import to_catalog


def test_a_snapshot_with_names():
    """All of it; a rule that was not declared is absent, and a classifier that cannot be read never decides."""
    rules = routing_pb2.EscalationRules(
        mean_logprob_below=-0.5, prompt_patterns=["why"], prompt_longer_than=9, classifier="newer", hint=True
    )
    snapshot = lane_pb2.WatchLanesResponse(
        models=[lane_pb2.Model(name="small", fallbacks=["mini"]), lane_pb2.Model(name="mini")],
        cascades=[routing_pb2.Cascade(name="smart", first="mini", then="small", rules=rules)],
        tenants=[
            routing_pb2.TenantRouting(organization="acme", aliases={"chat": "smart"}),
            routing_pb2.TenantRouting(organization="acme", project="web", refuse_fallbacks=False),
        ],
    )
    catalog = to_catalog(snapshot)
    expected = EscalationRules(-0.5, None, False, ("why",), 9, None, 0.0, True)
    assert catalog.cascades == {"smart": Cascade("smart", "mini", "small", expected)}
    assert catalog.tenants == {
        ("acme", ""): TenantNames({"chat": "smart"}, None),
        ("acme", "web"): TenantNames({}, False),
    }
    assert catalog.find("small").fallbacks == ["mini"]


async def test_metrics_of_routes():
    """Decisions by cascade, rule and outcome; fallbacks; tokens of a thrown away answer count for its own model."""
    models = [model("mini"), model("large", 0, fallbacks=["other"]), model("other")]
    scripts = {"mini": sure(-0.9, "small"), "other": saying("other words")}
    house = house_of(scripts, models, rules=EscalationRules(mean_logprob_below=-0.5))
    await answer(await make(house), asking("smart"))
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    (receipt,) = house.journal.receipts
    metrics.opened(receipt)
    metrics.closed(receipt)

    def value(name, **labels):
        return registry.get_sample_value(name, labels)

    decided = {"cascade": "smart", "rule": "mean_logprob", "decision": "escalated"}
    assert value("serin_cascade_decisions_total", **decided) == 1
    assert value("serin_gateway_fallbacks_total", model="large", to="other", reason="NOT_READY") == 1
    assert value("serin_gateway_tokens_total", model="mini", kind="completion") == 6
    assert value("serin_gateway_tokens_total", model="other", kind="completion") == 12
    assert value("serin_gateway_requests_total", door="rest", operation="unknown", model="other", reason="ok") == 1
