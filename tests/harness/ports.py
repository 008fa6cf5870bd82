"""Ports for programs that cannot choose one themselves."""

import socket


def free_port() -> int:
    """A loopback port that is free now; another program may take it before it is used."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
