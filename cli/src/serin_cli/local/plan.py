"""Which processes a declared mesh needs on this machine, with their command lines.

Pure: reads no files, starts nothing, knows nothing about what runs already.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serin_control.config import MeshConfig, Release

from serin_cli.local.edge import EdgeSite
from serin_cli.local.process import ProcessSpec, Tier

HOST = "127.0.0.1"
CONTROL = "control"
GATEWAY = "gateway"


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


def plan(config: MeshConfig, site: Site, folder: Callable[[str], Path]) -> dict[str, ProcessSpec]:
    """The processes a declaration needs beside the control plane and the stores, by name.

    Args:
        config: what is declared.
        site: where.
        folder: finds the folder of a release's ``path``.
    """
    releases = [(name, release) for name, model in config.models.items() for release in model.releases()]
    num_workers = sum(release.workers for _, release in releases)
    threads = max(1, site.num_cores // max(1, num_workers))
    specs = [_cache(site), _gateway(site)]
    for model, release in releases:
        path = folder(release.path)
        specs += [_tokenizer(model, release, path, site, index) for index in range(release.tokenizers)]
        specs += [_worker(model, release, path, site, index, threads) for index in range(release.workers)]
    return {spec.name: spec for spec in specs}


def _gateway(site: Site) -> ProcessSpec:
    flags = {"http-port": site.http_port, "port": site.grpc_port, **_identity(GATEWAY, site)}
    return _python("serin_gateway", GATEWAY, Tier.GATEWAY, flags, {"SERIN_STATE_REDIS": site.state_redis})


def _cache(site: Site) -> ProcessSpec:
    flags = {"port": 0, "metrics-port": 0, **_identity("cache", site)}
    return _python("serin_cache_svc", "cache", Tier.CACHE, flags, {"SERIN_CACHE_REDIS": site.cache_redis})


def _tokenizer(model: str, release: Release, path: Path, site: Site, index: int) -> ProcessSpec:
    name = f"tokenizer.{model}.{release.version}.{index}"
    return _python("serin_tokenizer_svc", name, Tier.TOKENIZER, _serving(name, model, release, path, site), {})


def _worker(model: str, release: Release, path: Path, site: Site, index: int, threads: int) -> ProcessSpec:
    name = f"worker.{model}.{release.version}.{index}"
    engine = {key.replace("_", "-"): value for key, value in release.engine.items()}
    flags = {**_serving(name, model, release, path, site), **engine}
    # A share of the cores, unless declared. No flag: another worker beside it is no reason to start it again.
    return _python("serin_worker", name, Tier.WORKER, flags, {"SERIN_THREADS": str(threads)})


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
