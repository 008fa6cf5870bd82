"""Alerts fire when they should and only then, and each leads to a page that says what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from harness.compose_file import read_compose
from harness.promql import metrics_asked
from serin_mesh.errors import STATUS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["First", "You should see", "What then"]
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: it comes with the package prometheus (apt, brew)"
)


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it beside the rules."""
    return subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120)


@needs_promtool
def test_the_rules_are_what_prometheus_reads():
    """`promtool check rules` accepts every rule."""
    done = promtool("check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then():
    """`promtool test rules` plays written series against the rules."""
    done = promtool("test", "rules", "rules_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_firing_and_silent():
    """Each alert has a moment at which it fires and one at which it does not."""
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    moments = [moment for test in tests for moment in test.get("alert_rule_test", [])]
    for name in {alert["alert"] for alert in ALERTS}:
        outcomes = {bool(moment["exp_alerts"]) for moment in moments if moment["alertname"] == name}
        assert outcomes == {True, False}, name
    severities = {
        (moment["alertname"], fired["exp_labels"]["severity"]) for moment in moments for fired in moment["exp_alerts"]
    }
    assert severities == {(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS}


def test_every_alert_has_its_runbook_and_every_runbook_its_alert():
    """The link names a page of the alert's own name, and no page is left behind."""
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
        assert alert["labels"]["severity"] in ("page", "ticket")
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("[!R]*.md")), ids=lambda page: page.stem)
def test_a_runbook_begins_with_a_command_and_what_it_shows(page):
    """Title, what it means, then the first command, its expected output, and what then, in this order."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE)[:3] == SECTIONS
    first, seen = (re.split(r"^## ", text, flags=re.MULTILINE)[index] for index in (1, 2))
    assert re.search(r"^ {4,}\S", first, flags=re.MULTILINE)
    assert re.search(r"^ {4,}\S", seen, flags=re.MULTILINE)


def test_failures_are_the_reasons_that_are_ours():
    """What counts against the objective is what the table of errors calls a fault of the server."""
    ours = {reason.value for reason, row in STATUS.items() if row.http >= 500 and row.http != 501}
    for rule in (rule for rule in RULES if "record" in rule):
        failed, valid = (set(found.split("|")) for found in re.findall(r'reason=~"([^"]+)"', rule["expr"]))
        assert failed == ours
        assert valid == ours | {"ok"}


def test_what_an_alert_asks_for_is_recorded_first():
    """Names of recording rules that alerts and boards use are recorded."""
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {name for rule in ALERTS for name in metrics_asked(rule["expr"]) if name.startswith("serin:")}
    assert asked <= recorded


def test_prometheus_is_given_the_rules():
    """The compose file mounts them where the configuration looks for them."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    (path,) = config["rule_files"]
    mounts = read_compose(ROOT / "docker-compose.yml", {})["prometheus"].mounts
    assert mounts[path] == "./deploy/prometheus/rules.yaml"
