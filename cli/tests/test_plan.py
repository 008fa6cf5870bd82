"""What a declaration needs on a machine: processes, names, flags."""

from dataclasses import replace
from pathlib import Path

import pytest
from serin_cli.certificates import PublicCertificate
from serin_cli.local.edge import EdgeSite
from serin_cli.local.plan import Site, control_spec, plan
from serin_cli.local.process import Tier
from serin_control.config import parse_config

SITE = Site(
    21000, 8080, 9080, Path("/s/mesh.secret"), Path("/s/serin.yaml"), "redis://:secret@state", "redis://cache", 8
)
TEXT = """\
models:
  small:
    numerics: invariant
    versions: {v1: {path: /m/v1, workers: 3}, v2: {path: /m/v2, tokenizers: 2, max_sequences: 7}}
"""


@pytest.fixture
def specs():
    """The processes of a model with two versions."""
    return plan(parse_config(TEXT), SITE, Path)


def test_every_declared_process_is_planned(specs):
    """Workers and tokenizers in the declared number, one gateway and one cache."""
    assert sorted(specs) == [
        "cache",
        "gateway",
        "tokenizer.small.v1.0",
        "tokenizer.small.v2.0",
        "tokenizer.small.v2.1",
        "worker.small.v1.0",
        "worker.small.v1.1",
        "worker.small.v1.2",
        "worker.small.v2.0",
    ]
    assert specs["gateway"].tier is Tier.GATEWAY


def test_a_worker_gets_its_version_and_engine(specs):
    """What is declared for a version arrives as the worker's flags; cores are shared among workers."""
    worker = specs["worker.small.v2.0"]
    for flag in (
        "--model=small",
        "--model-path=/m/v2",
        "--version=v2",
        "--instance=worker.small.v2.0",
        "--max-sequences=7",
    ):
        assert flag in worker.command
    assert "--numerics=invariant" in worker.command
    assert worker.environment["SERIN_THREADS"] == "2"


def test_secrets_are_in_no_command_line(specs):
    """Addresses of Redis, which may hold passwords, travel in the environment."""
    for spec in [*specs.values(), control_spec(SITE)]:
        assert "secret@" not in " ".join(spec.command)
    assert specs["gateway"].environment["SERIN_STATE_REDIS"] == "redis://:secret@state"


def test_the_control_plane_is_told_of_an_edge():
    """Where Envoy listens and what it shows; nothing of the kind without one."""
    assert not any("edge" in word for word in control_spec(SITE).command)
    shown = PublicCertificate(Path("/c/cert.pem"), Path("/c/key.pem"), Path("/c/trust.pem"))
    command = control_spec(replace(SITE, edge=EdgeSite(8443, shown, "envoy"))).command
    assert {"--edge-port=8443", "--edge-cert-file=/c/cert.pem", "--edge-key-file=/c/key.pem"} <= set(command)
    assert not any(word.startswith("--mesh-edge-port") for word in command)


def test_more_workers_leave_the_first_as_it_is(specs):
    """Scaling a version changes nothing about the processes that run already."""
    more = plan(parse_config(TEXT.replace("workers: 3", "workers: 4")), SITE, Path)
    assert {name: more[name] for name in specs} == specs
