"""What a declaration needs on a machine: processes, names, flags."""

from dataclasses import replace
from pathlib import Path

import pytest
from serin_cli.certificates import PublicCertificate
from serin_cli.local.additions import Addition, Additions, Which
from serin_cli.local.edge import EdgeSite
from serin_cli.local.plan import Site, control_spec, plan
from serin_cli.local.process import Tier
from serin_cli.local.releases import declared_releases, taken_away
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
    flags = [word.partition("=")[0] for word in control_spec(SITE).command if word.startswith("--")]
    assert not any("edge" in flag for flag in flags)
    shown = PublicCertificate(Path("/c/cert.pem"), Path("/c/key.pem"), Path("/c/trust.pem"))
    command = control_spec(replace(SITE, edge=EdgeSite(8443, shown, "envoy"))).command
    assert {"--edge-port=8443", "--edge-cert-file=/c/cert.pem", "--edge-key-file=/c/key.pem"} <= set(command)
    assert not any(word.startswith("--mesh-edge-port") for word in command)


def test_more_workers_leave_the_first_as_it_is(specs):
    """Scaling a version changes nothing about the processes that run already."""
    more = plan(parse_config(TEXT.replace("workers: 3", "workers: 4")), SITE, Path)
    assert {name: more[name] for name in specs} == specs


def added(*additions: Addition, withheld: frozenset[Which] = frozenset()):
    """The plan of the same declaration with additions."""
    return plan(parse_config(TEXT), SITE, Path, Additions(additions, withheld))


def test_an_added_version_stands_beside_the_declared_ones(specs):
    """A further worker runs like the version with the most traffic, except for what was said; nothing else moves."""
    which = Which("worker", "small", "v3")
    more = added(Addition(which, "/m/v3", 2, engine={"precision": "bfloat16"}))
    assert {name: more[name] for name in specs} == specs
    assert sorted(more.keys() - specs.keys()) == ["worker.small.v3.0", "worker.small.v3.1"]
    command = more["worker.small.v3.0"].command
    for flag in ("--model-path=/m/v3", "--version=v3", "--numerics=invariant", "--precision=bfloat16"):
        assert flag in command
    assert "--max-sequences=7" in command  # as v2 has it, which has all traffic
    assert more["worker.small.v3.0"].is_addition
    assert not any(more[name].is_addition for name in specs)


def test_every_service_can_have_a_further_version(specs):
    """Gateways and caches of another version announce it, on ports of their own and from their own build."""
    more = added(
        Addition(Which("gateway", "", "v2"), code="/builds/gateway"),
        Addition(Which("cache", "", "v2")),
        Addition(Which("tokenizer", "small", "v3"), "/m/v3"),
    )
    assert sorted(more.keys() - specs.keys()) == ["cache.v2.0", "gateway.v2.0", "tokenizer.small.v3.0"]
    gateway = more["gateway.v2.0"]
    assert {"--version=v2", "--http-port=0", "--port=0"} <= set(gateway.command)
    assert gateway.environment["PYTHONPATH"] == "/builds/gateway"
    assert gateway.environment["SERIN_STATE_REDIS"] == "redis://:secret@state"
    assert "--version=v2" in more["cache.v2.0"].command


def test_the_declared_gateway_and_cache_announce_their_version():
    """What serin.yaml says of their version is what they say of themselves; v1 without it."""
    specs = plan(parse_config(TEXT + "gateway: {version: v9}\ncache: {version: v8}\n"), SITE, Path)
    assert "--version=v9" in specs["gateway"].command
    assert "--version=v8" in specs["cache"].command
    assert "--version=v1" in plan(parse_config(TEXT), SITE, Path)["cache"].command


def test_a_virtual_environment_brings_its_own_python(tmp_path):
    """A build that is a virtual environment runs with that environment's interpreter."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (spec,) = (s for n, s in added(Addition(Which("cache", "", "v2"), code=str(tmp_path))).items() if n == "cache.v2.0")
    assert spec.command[:3] == (str(tmp_path / "bin" / "python"), "-m", "serin_cache_svc")


def test_what_is_declared_is_no_addition(specs):
    """A version that was added first and declared later runs as it is declared, and once."""
    assert added(Addition(Which("worker", "small", "v1"), "/elsewhere", 9)) == specs
    assert added(Addition(Which("worker", "gone", "v1"), "/elsewhere")) == specs


def test_a_declared_version_can_be_taken_away(specs):
    """A service of a declared version that was removed here is not started; its other service stays."""
    less = added(withheld=frozenset([Which("worker", "small", "v1")]))
    assert sorted(specs.keys() - less.keys()) == ["worker.small.v1.0", "worker.small.v1.1", "worker.small.v1.2"]


def test_what_was_added_and_is_declared_by_now_can_be_taken_away(specs):
    """Nothing of it is left to drain; and it can be brought back, or added where it is declared no more."""
    which, config = Which("worker", "small", "v2"), parse_config(TEXT)
    both = Additions((Addition(which, "/m/v2"),))
    less = taken_away(config, both, which)
    assert sorted(specs.keys() - plan(config, SITE, Path, less).keys()) == ["worker.small.v2.0"]
    assert plan(config, SITE, Path, less.withholding(which, False)) == specs
    assert less.with_added(Addition(which, "/m/v2")) == both
    assert taken_away(parse_config("models: {small: {path: /m/v1}}"), both, which) == Additions()
    front = Which("gateway", "", "v1")
    assert taken_away(config, Additions((Addition(front),)), front) == Additions(), "the declared one stays"


def test_one_size_of_the_cache_replaces_the_other():
    """A cache size that is said for an addition is the only one that is said."""
    text = TEXT.replace("numerics: invariant", "kv_blocks: 64")
    addition = Addition(Which("worker", "small", "v3"), "/m/v3", engine={"kv_cache_bytes": 4096})
    command = plan(parse_config(text), SITE, Path, Additions((addition,)))["worker.small.v3.0"].command
    assert "--kv-cache-bytes=4096" in command
    assert not any(flag.startswith("--kv-blocks") for flag in command)


def test_what_reads_a_model_looks_at_it_before_each_start():
    """Workers and tokenizers of a version, each at the path that is declared for it; nobody else."""
    seen = []
    for spec in plan(parse_config(TEXT), SITE, Path, check=seen.append).values():
        before = len(seen)
        spec.check()
        assert (len(seen) > before) == spec.name.startswith(("worker", "tokenizer"))
    assert set(seen) == {release.path for _, release in declared_releases(parse_config(TEXT), Additions())}
