"""HTTP clients of plain addresses. None reads the list of authorities: that takes longer than most tests."""

import ssl
from typing import Any

import httpx
from openai import AsyncOpenAI

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, so nothing but ``http://`` works with it."""


def plain_http(**options: Any) -> httpx.AsyncClient:
    """A client with these options of ``httpx.AsyncClient``."""
    return httpx.AsyncClient(verify=NO_TLS, **options)


def plain_openai(base_url: str, key: str, timeout_s: float = 60.0) -> AsyncOpenAI:
    """The official SDK; it does not retry, so that tests see every failure."""
    return AsyncOpenAI(
        base_url=base_url, api_key=key, max_retries=0, timeout=timeout_s, http_client=plain_http(timeout=timeout_s)
    )
