"""Prometheus scrapes services that exist, and dashboards ask for metrics that the mesh has."""

import json
import re
from pathlib import Path

import yaml
from harness.compose_file import read_compose

ROOT = Path(__file__).resolve().parents[2]


def test_prometheus_scrapes_every_service_of_ours():
    """Each service with metrics is a target by its name in the compose file, on the port it is told."""
    services = read_compose(ROOT / "docker-compose.yml", {})
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {name: entry["port"] for job in jobs for entry in job["dns_sd_configs"] for name in entry["names"]}
    ours = {name for name, service in services.items() if "SERIN_METRICS_PORT" in service.environment}
    assert set(targets) == ours
    for name, port in targets.items():
        service = services[name]
        told = service.command[service.command.index("--http-port") + 1] if name == "gateway" else "7001"
        assert str(port) == told


def test_credentials_of_prometheus_are_made_by_the_file():
    """What Prometheus reads from the monitoring volume is written there by the one-shot services."""
    services = read_compose(ROOT / "docker-compose.yml", {})
    read = set(re.findall(r"/monitoring/[\w.]+", (ROOT / "deploy/prometheus/prometheus.yml").read_text()))
    written = " ".join(" ".join(services[name].command) for name in ("certs", "keys"))
    assert read
    assert all(path in written for path in read)


def test_dashboards_are_json_and_ask_prometheus():
    """Every panel has a query, and every query goes to the provisioned data source."""
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    uid = source["datasources"][0]["uid"]
    dashboards = list((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    assert dashboards
    for file in dashboards:
        for panel in json.loads(file.read_text())["panels"]:
            assert panel["datasource"]["uid"] == uid
            assert all(target["expr"] for target in panel["targets"])
