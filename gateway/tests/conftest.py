"""A gateway in memory behind a real HTTP server, and the official SDK in front of it."""

import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.endpoint import Endpoints
from serin_gateway.rest.openapi import document
from serin_gateway.rest.server import RestServer
from serin_gateway.testing import MemoryHouse, Script
from serin_mesh.errors import MeshError
from serin_mesh.readiness import Readiness
from serin_mesh.testing import free_port
from valkey_process import Valkey

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. Reading the list of authorities, as clients do otherwise, takes longer than most tests."""


@cache
def described() -> tuple[Endpoints, dict[str, dict[str, Any]]]:
    """All endpoints, and what the OpenAPI document says of each path."""
    endpoints = rest_endpoints(Readiness())
    return endpoints, json.loads(document(endpoints.all, "0"))["paths"]


async def judge(response: httpx.Response) -> None:
    """Whatever a test asks of an endpoint, it ends with a status that the OpenAPI document has for it."""
    endpoints, paths = described()
    request = response.request
    with suppress(MeshError):  # nothing is at this path, or not by this method
        endpoint = endpoints.find(request.method, request.url.raw_path.partition(b"?")[0])
        declared = paths[endpoint.path][endpoint.method.lower()]["responses"]
        assert str(response.status_code) in declared, (endpoint.operation, response.status_code)


class Front:
    """A running REST door on a house in memory."""

    def __init__(self, house: MemoryHouse, server: RestServer, key: str, readiness: Readiness) -> None:
        self.house = house
        self.server = server
        self.key = key
        self.readiness = readiness
        self.url = f"http://127.0.0.1:{server.port}"
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=20, verify=NO_TLS, event_hooks={"response": [judge]}
        )
        sdk = httpx.AsyncClient(verify=NO_TLS, timeout=60)
        self.openai = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=sdk)

    async def chat(self, **body):
        """POST a chat completion; `model` and `messages` have defaults."""
        defaults = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        return await self.http.post("/v1/chat/completions", json=defaults | body)


@asynccontextmanager
async def open_front(house: MemoryHouse, **options) -> AsyncIterator[Front]:
    """Serve a house on a free port."""
    readiness = Readiness()
    readiness.ready()
    door = Door(house.collaborators, rest_endpoints(readiness), **options)
    async with RestServer(door, "127.0.0.1", 0, drain_grace_s=5) as server:
        front = Front(house, server, await house.key(), readiness)
        try:
            yield front
        finally:
            await front.openai.close()
            await front.http.aclose()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    """A door whose model says hello."""
    async with open_front(MemoryHouse()) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_front() -> AsyncIterator[Front]:
    """The same for all tests of a file that leave nothing behind."""
    async with open_front(MemoryHouse()) as opened:
        yield opened


@pytest.fixture
def fronts() -> Callable[..., object]:
    """Opens doors on scripts."""

    def opened(script: Script | None = None, *, timeout_s: float = 60.0, **parts):
        return open_front(MemoryHouse(script, **parts), timeout_s=timeout_s)

    return opened


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory) -> Iterator[Valkey]:
    """A real Valkey for the whole run."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    """Where it is."""
    return valkey.url


@pytest.fixture
def fronts_on() -> Callable[..., object]:
    """Opens doors on houses."""
    return open_front


@pytest.fixture
def sdk() -> Callable[..., AsyncAnthropic]:
    """Opens Anthropic's SDKs on fronts; none retries."""

    def opened(front: Front, key: str = "") -> AsyncAnthropic:
        plain = httpx2.AsyncClient(verify=NO_TLS)
        return AsyncAnthropic(base_url=front.url, api_key=key or front.key, max_retries=0, http_client=plain)

    return opened
