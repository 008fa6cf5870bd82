"""What alerts and boards ask Prometheus for is what the services really show."""

import json
from pathlib import Path

import pytest
import yaml
from harness.clients import plain_http
from harness.instances import await_instances
from harness.metrics import metric_names
from harness.promql import metrics_asked
from harness.running_mesh import RunningMesh
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from serin.control.v1 import registry_pb2
from serin_control.assembly import Control
from serin_control.gauges import add_gauges

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
OWN = {"up", "ALERTS"}  # Prometheus makes these itself
SERVICES = {
    registry_pb2.SERVICE_KIND_GATEWAY,
    registry_pb2.SERVICE_KIND_TOKENIZER,
    registry_pb2.SERVICE_KIND_WORKER,
    registry_pb2.SERVICE_KIND_CACHE,
}


def rules() -> list[dict[str, str]]:
    """All rules."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def board_expressions(board: Path) -> list[str]:
    """Everything that a board asks for."""
    panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def of_control() -> set[str]:
    """What a control plane shows."""
    registry = CollectorRegistry()
    add_gauges(Control(), registry)
    return metric_names(registry.collect())


async def of_services(mesh: RunningMesh) -> set[str]:
    """What every other service of a running mesh shows."""
    key = mesh.serin("key", "create", "--role", "viewer").strip()

    def all_there(instances) -> bool:
        return {instance.registration.service for instance in instances} >= SERVICES

    names: set[str] = set()
    async with plain_http(timeout=30, headers={"authorization": f"Bearer {key}"}) as client:
        for instance in await await_instances(mesh, all_there):
            response = await client.get(f"http://{instance.registration.http_endpoint}/metrics")
            response.raise_for_status()
            names |= metric_names(text_string_to_metric_families(response.text))
    return names


async def test_whatever_is_asked_for_is_shown(mesh):
    """Every metric in a rule or on a board is shown by a service, recorded by a rule, or Prometheus' own."""
    shown = of_control() | await of_services(mesh) | OWN
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {f"rule {rule.get('alert') or rule['record']}": metrics_asked(rule["expr"]) for rule in rules()}
    for board in BOARDS:
        asked |= {f"{board.name}: {expression}": metrics_asked(expression) for expression in board_expressions(board)}
    assert all(asked.values())
    missing = {where: names - shown - recorded for where, names in asked.items() if names - shown - recorded}
    assert missing == {}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (model) (rate(a_total{reason=~"x|y"}[5m])) / sum(b:c)', {"a_total", "b:c"}),
        ('max(a{s="x"} offset 1h) == 1 unless on () b > bool 0', {"a", "b"}),
        ('sum by (instance) ({__name__="vllm:running"})', {"vllm:running"}),
        ("absent(a) and on () count(b) > 14.4 * 0.001", {"a", "b"}),
    ],
)
def test_names_are_found_in_expressions(expression, names):
    """Functions, labels, ranges and operators are no metrics."""
    assert metrics_asked(expression) == names
