"""Which processes a mesh needs on this machine, declared and added, with their command lines.

Pure: reads no files, starts nothing, knows nothing about what runs already.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from serin_control.config import MeshConfig, Release

from serin_cli.local.additions import Addition, Additions
from serin_cli.local.edge import EdgeSite
from serin_cli.local.names import CACHE, CONTROL, GATEWAY
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.local.releases import added_releases, declared_releases

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Site:
    """Where this mesh lives: what its processes are told beside the declaration."""

    control_port: int
    http_port: int
    grpc_port: int
    mesh_secret: Path
    config: Path  # what the control plane starts from
    state_redis: str
    cache_redis: str
    num_cores: int
    edge: EdgeSite | None = None

    @property
    def control(self) -> str:
        """Address of the control plane."""
        return f"{HOST}:{self.control_port}"


def control_spec(site: Site) -> ProcessSpec:
    """The control plane; everything else is planned from what it says is declared."""
    edge = {} if site.edge is None else site.edge.flags
    flags = {"port": site.control_port, "config-file": site.config, **edge, **_identity(CONTROL, site)}
    return _python("serin_control", CONTROL, Tier.CONTROL, flags, {"SERIN_STATE_REDIS": site.state_redis})


def plan(
    config: MeshConfig,
    site: Site,
    folder: Callable[[str], Path],
    additions: Additions | None = None,
    check: Callable[[str], None] = lambda path: None,
) -> dict[str, ProcessSpec]:
    """The processes a mesh needs beside the control plane and the stores, by name.

    Args:
        config: what is declared.
        site: where.
        folder: finds the folder of a release's ``path``.
        additions: versions beside the declared ones; what is declared too is not an addition.
        check: sees, before each start of a process that reads it, that a ``path`` still holds what it held.
    """
    additions = additions or Additions()
    added = list(added_releases(config, additions))
    releases = list(declared_releases(config, additions))
    num_workers = sum(release.workers for _, release in (*releases, *((name, release) for name, release, _ in added)))
    threads = max(1, site.num_cores // max(1, num_workers))
    specs = [_cache(site, CACHE, config.cache.version), _gateway(site, GATEWAY, config.gateway.version)]
    for model, release in releases:
        specs += _serving_specs(model, release, folder(release.path), site, threads, check)
    extra = [spec for addition in additions.added for spec in _front_specs(addition, site)]
    for model, release, addition in added:
        own = _serving_specs(model, release, folder(release.path), site, threads, check)
        extra += [_built_from(addition.code, spec) for spec in own]
    declared = {spec.name: spec for spec in specs}
    return declared | {spec.name: replace(spec, is_addition=True) for spec in extra if spec.name not in declared}


def _serving_specs(
    model: str, release: Release, path: Path, site: Site, threads: int, check: Callable[[str], None]
) -> list[ProcessSpec]:
    specs = [
        *(_tokenizer(model, release, path, site, index) for index in range(release.tokenizers)),
        *(_worker(model, release, path, site, index, threads) for index in range(release.workers)),
    ]
    return [replace(spec, check=partial(check, release.path)) for spec in specs]


def _front_specs(addition: Addition, site: Site) -> list[ProcessSpec]:
    """An added version of the gateway or the cache."""
    which = addition.which
    make = {"gateway": _gateway, "cache": _cache}.get(which.service)
    if make is None:
        return []
    names = [f"{which.prefix}.{index}" for index in range(addition.num_processes)]
    return [_built_from(addition.code, make(site, name, which.version)) for name in names]


def _built_from(code: str, spec: ProcessSpec) -> ProcessSpec:
    """The same process from another build: a virtual environment, or a folder of packages."""
    if not code:
        return spec
    python = Path(code) / "bin" / "python"
    if python.exists():
        return replace(spec, command=(str(python), *spec.command[1:]))
    return replace(spec, environment={**spec.environment, "PYTHONPATH": code})


def _gateway(site: Site, name: str, version: str) -> ProcessSpec:
    """The front door on its ports, or a further version of it on any."""
    ports = {"http-port": site.http_port, "port": site.grpc_port} if name == GATEWAY else {"http-port": 0, "port": 0}
    flags = {**ports, **_identity(name, site), "version": version}
    return _python("serin_gateway", name, Tier.GATEWAY, flags, {"SERIN_STATE_REDIS": site.state_redis})


def _cache(site: Site, name: str, version: str) -> ProcessSpec:
    flags = {"port": 0, "metrics-port": 0, **_identity(name, site), "version": version}
    return _python("serin_cache_svc", name, Tier.CACHE, flags, {"SERIN_CACHE_REDIS": site.cache_redis})


def _tokenizer(model: str, release: Release, path: Path, site: Site, index: int) -> ProcessSpec:
    name = f"tokenizer.{model}.{release.version}.{index}"
    spec = _python("serin_tokenizer_svc", name, Tier.TOKENIZER, _serving(name, model, release, path, site), {})
    return replace(spec, cluster=f"tokenizer.{model}@{release.version}")


def _worker(model: str, release: Release, path: Path, site: Site, index: int, threads: int) -> ProcessSpec:
    name = f"worker.{model}.{release.version}.{index}"
    engine = {key.replace("_", "-"): value for key, value in release.engine.items()}
    flags = {**_serving(name, model, release, path, site), **engine}
    # A share of the cores, unless declared. No flag: another worker beside it is no reason to start it again.
    spec = _python("serin_worker", name, Tier.WORKER, flags, {"SERIN_THREADS": str(threads)})
    return replace(spec, cluster=f"worker.{model}@{release.version}")


def _serving(name: str, model: str, release: Release, path: Path, site: Site) -> dict[str, object]:
    identity = _identity(name, site)
    return {"model": model, "model-path": path, "version": release.version, "port": 0, "metrics-port": 0, **identity}


def _identity(name: str, site: Site) -> dict[str, object]:
    return {"host": HOST, "instance": name, "control": site.control, "mesh-secret-file": site.mesh_secret}


def _python(
    module: str, name: str, tier: Tier, flags: Mapping[str, object], environment: Mapping[str, str]
) -> ProcessSpec:
    command = (sys.executable, "-m", module, *(f"--{key}={value}" for key, value in flags.items()))
    return ProcessSpec(name, tier, command, dict(environment))
