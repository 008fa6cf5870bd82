"""Turns the host that an instance announces into the address that routes need: xDS carries addresses, not names."""

import asyncio
import ipaddress
import socket
from dataclasses import replace

from serin_control.admission import split_endpoint
from serin_control.errors import RegistrationInvalid
from serin_control.instance import Registration

RESOLVE_TIMEOUT_S = 2.0


async def resolved(registration: Registration) -> Registration:
    """The registration with addresses instead of names.

    Raises:
        RegistrationInvalid: an endpoint is malformed, or its host does not resolve.
    """
    endpoint = await _resolve("endpoint", registration.endpoint)
    http = await _resolve("http_endpoint", registration.http_endpoint) if registration.http_endpoint else ""
    return replace(registration, endpoint=endpoint, http_endpoint=http)


async def _resolve(field: str, endpoint: str) -> str:
    try:
        host, port = split_endpoint(endpoint)
    except ValueError as error:
        raise RegistrationInvalid(f"{field}: {error}") from error
    try:
        return _joined(str(ipaddress.ip_address(host)), port)
    except ValueError:
        pass  # a name
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise RegistrationInvalid(f"{field}: host {host!r} does not resolve here: {error or 'no answer'}") from error
    found.sort(key=lambda entry: entry[0] is not socket.AddressFamily.AF_INET)  # IPv4 first
    return _joined(str(found[0][4][0]), port)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
