"""``python -m serin_mesh.health HOST:PORT [--service NAME]``: exit 0 when a server says SERVING, else 1.

Uses the certificates of ``SERIN_TLS_DIR`` if it is set. Knows nothing about what the server serves.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from serin_mesh.channels import MeshChannel, connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.tls import TlsError


@dataclass(frozen=True, slots=True)
class _Probe:
    tls_dir: Path | None
    control: str = ""
    instance: str = "health"


async def check(address: str, service: str = "", *, tls_dir: Path | None = None, timeout_s: float = 2.0) -> str:
    """The status that a server gives: SERVING or NOT_SERVING.

    Args:
        address: ``host:port``.
        service: the service asked about, which is also who its certificate must name; empty: the server as a whole.
        tls_dir: certificates; None: no TLS.
        timeout_s: most seconds to wait.

    Raises:
        MeshError: it does not answer.
    """
    async with connect(address, _Probe(tls_dir), echo_lane=False, service=service) as channel:
        return await _status(channel, service, timeout_s)


async def answers(address: str, service: str = "", *, tls_dir: Path | None = None, timeout_s: float = 2.0) -> bool:
    """Whether a server says anything within so long, also that it refuses: one that hangs says nothing.

    Args as those of :func:`check`.
    """
    async with connect(address, _Probe(tls_dir), echo_lane=False, service=service) as channel:
        return await says_anything(channel, service, timeout_s=timeout_s)


async def says_anything(channel: MeshChannel, service: str = "", *, timeout_s: float = 2.0) -> bool:
    """The same of whoever a channel leads to."""
    try:
        await _status(channel, service, timeout_s)
    except MeshError as error:
        return error.reason not in (Reason.UPSTREAM_UNAVAILABLE, Reason.DEADLINE_EXCEEDED)
    return True


async def _status(channel: MeshChannel, service: str, timeout_s: float) -> str:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
    status: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Check one server and say what it says."""
    parser = argparse.ArgumentParser(prog="serin_mesh.health", description="Ask a gRPC server for its health.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--service", default="", help="service asked about; with TLS, who its certificate must name")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="most seconds to wait")
    arguments = parser.parse_args(argv)
    tls_dir = os.environ.get("SERIN_TLS_DIR")
    try:
        status = asyncio.run(
            check(
                arguments.address,
                arguments.service,
                tls_dir=Path(tls_dir) if tls_dir else None,
                timeout_s=arguments.timeout_s,
            )
        )
    except (MeshError, TlsError) as error:
        sys.stderr.write(f"{arguments.address}: {error}\n")
        return 1
    sys.stdout.write(status + "\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    raise SystemExit(main())
