"""The public keys of an issuer (JWKS, RFC 7517): fetched, kept, fetched again.

A key that is not known yet is looked for at once, but not more often than every `AGAIN_S`, however often it is asked
for; while the issuer does not answer, what was fetched within `STALE_S` holds, and nobody knows whether it has others.
Knows nothing about tokens.
"""

import asyncio
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import orjson

FRESH_S = 300.0
STALE_S = 3600.0
AGAIN_S = 10.0
TIMEOUT_S = 3.0
MAX_BYTES = 262_144
MAX_KEYS = 100

Fetch = Callable[[str], bytes]


class KeysUnknown(Exception):
    """Whether there is such a key cannot be said now; ``again_s``: in how long that may be different."""

    def __init__(self, why: str, again_s: int) -> None:
        super().__init__(why)
        self.again_s = again_s


class JwksCache:
    """The keys at one URL.

    Args:
        url: where they are.
        fetch: gets a URL's content, from a thread; raises OSError.
        clock: seconds that only go forward.
    """

    def __init__(self, url: str, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._fetch = fetch or fetch_url
        self._clock = clock
        self._keys: Mapping[str, Mapping[str, Any]] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._is_away = False
        """Whether the last fetch failed."""
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> Mapping[str, Any] | None:
        """The key of this name, as JWK; an empty name means the only key there is.

        None: it was not among the issuer's keys when they were fetched last, which is at most `AGAIN_S` ago.

        Raises:
            KeysUnknown: the keys could not be fetched, and this is none of those that are known.
        """
        age_s = self._clock() - self._fetched_at
        if age_s >= STALE_S:
            await self._refresh()
        elif age_s >= FRESH_S:
            self._begin()  # what is known holds meanwhile
        if self._clock() - self._fetched_at >= STALE_S:
            raise self._unknown()
        key = self._known(kid)
        if key is not None:
            return key
        await self._refresh()
        key = self._known(kid)
        if key is None and self._is_away:
            raise self._unknown()
        return key

    def _unknown(self) -> KeysUnknown:
        again_s = max(1, math.ceil(self._tried_at + AGAIN_S - self._clock()))
        return KeysUnknown(f"the issuer's keys at {self._url} cannot be fetched", again_s)

    def _known(self, kid: str) -> Mapping[str, Any] | None:
        if kid:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    async def _refresh(self) -> None:
        fetching = self._begin()
        if fetching is not None:
            await asyncio.shield(fetching)

    def _begin(self) -> "asyncio.Task[None] | None":
        """Fetch, once for all who want it; None: it was tried a moment ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if self._clock() - self._tried_at < AGAIN_S:
            return None
        self._tried_at = self._clock()
        self._fetching = asyncio.create_task(self._fetch_now())
        return self._fetching

    async def _fetch_now(self) -> None:
        try:
            stored = orjson.loads(await asyncio.to_thread(self._fetch, self._url))
            keys = [key for key in stored["keys"][:MAX_KEYS] if isinstance(key, dict)]
        except (OSError, ValueError, TypeError, KeyError):
            self._is_away = True
            return
        self._is_away = False
        self._keys = {str(key.get("kid", "")): key for key in keys if key.get("use", "sig") == "sig"}
        self._fetched_at = self._clock()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from where they were declared to be, and from nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""
        return


def fetch_url(url: str) -> bytes:
    """The content of a URL, at most 256 KiB, within 3 s.

    Raises:
        OSError: it cannot be had.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(url, timeout=TIMEOUT_S) as answer:
        content: bytes = answer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"more than {MAX_BYTES} bytes")
    return content
