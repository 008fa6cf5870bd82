"""The endpoint that others reach this process by, as a numeric address: balancers dial addresses, not names.

Knows nothing about who dials.
"""

import asyncio
import ipaddress
import socket


class NotReachable(Exception):
    """No address is known that others could dial; the message says what to set."""


def join(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def advertised_endpoint(host: str, port: int) -> str:
    """``ip:port`` of a host name or address; for the wildcard, of this machine's own name.

    Raises:
        NotReachable: the name does not resolve, or this machine's name means loopback.
    """
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - recognised, not bound
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotReachable(f"--advertise-host: {name!r}: {error}: accepted: a name or address others dial") from error
    addresses = [str(where[0]) for *_, where in sorted(found, key=lambda one: one[0] != socket.AF_INET)]
    if name != host and ipaddress.ip_address(addresses[0]).is_loopback:
        raise NotReachable(f"--advertise-host: '': {name} is a loopback address: accepted: an address others dial")
    return join(addresses[0], port)
