"""Ports: what is taken is named with its owner, 0 finds a free one."""

import os
import socket

import pytest
from serin_cli.errors import StartRefused, UsageProblem
from serin_cli.local.ports import PortClaims, claim


def test_a_taken_port_is_refused_with_its_owner():
    """The refusal names the flag, the port, the process that has it, and the way out."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"--port: port {port} is in use by .*process {os.getpid()}.*--port 0"):
            claim("--port", port)


def test_a_claim_is_kept():
    """Wanting the same again gives the same port, also when the mesh itself listens on it by then."""
    claims = PortClaims()
    port = claims.claim("--port", 0)
    with socket.socket() as own:
        own.bind(("127.0.0.1", port))
        own.listen()
        assert claims.claim("--port", 0) == port
        with pytest.raises(StartRefused):
            claims.claim("--port", port)


def test_two_flags_do_not_share_a_port():
    """Also where the second wish comes from a file or a default, before anybody listens."""
    claims = PortClaims()
    port = claims.claim("--port", 0)
    with pytest.raises(UsageProblem, match=rf"--grpc-port: {port}: accepted: another port than --port, or 0"):
        claims.claim("--grpc-port", port)
