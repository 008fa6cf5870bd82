"""Posts JSON to an address and reads JSON back: http and https, no redirects, bounded in time and size.

Knows nothing about what is posted.
"""

import asyncio
import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 65_536


class WebhookFailed(Exception):
    """The address did not answer as it should; the message names it and says what it did."""


async def post_json(address: str, body: Any, *, timeout_s: float) -> Any:
    """The JSON value that the address answers with.

    Raises:
        WebhookFailed: it cannot be reached, is too slow, or answers with anything but JSON and status 200.
    """
    try:
        async with asyncio.timeout(timeout_s):
            # The socket's own timeout ends the thread too, should it outlive this call.
            return await asyncio.to_thread(_post, address, json.dumps(body).encode(), timeout_s)
    except TimeoutError:
        raise WebhookFailed(f"{address}: no answer within {timeout_s:g} s") from None
    except (OSError, HTTPException, ValueError) as error:
        raise WebhookFailed(f"{address}: {type(error).__name__}: {error}") from error


def _post(address: str, body: bytes, timeout_s: float) -> Any:
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("not an http:// or https:// address")
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname, url.port, timeout=timeout_s)
    try:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read(MAX_ANSWER_BYTES + 1)
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    if len(text) > MAX_ANSWER_BYTES:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    return json.loads(text)
