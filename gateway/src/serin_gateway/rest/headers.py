"""Response headers that say where a caller stands. Knows nothing about how limits are counted."""

from collections.abc import Sequence

from serin_gateway.limits.limiter import Standing
from serin_gateway.rest.client import Headers


def limit_headers(standing: Standing) -> Headers:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the tightest limits, whichever scope's they are.

    They are the limits that were applied: where these are a gateway's own share, ``x-ratelimit-scope`` says so.
    """
    headers: Headers = []
    for what, window in ((b"requests", standing.requests), (b"tokens", standing.tokens)):
        if window is not None:
            headers += [
                (b"x-ratelimit-limit-" + what, str(window.limit).encode()),
                (b"x-ratelimit-remaining-" + what, str(window.remaining).encode()),
                (b"x-ratelimit-reset-" + what, f"{window.reset_s:.3f}s".encode()),
            ]
    if standing.is_local_share:
        headers.append((b"x-ratelimit-scope", b"local-share"))
    return headers


def ignored_headers(names: Sequence[str]) -> Headers:
    """The parameters that had no effect, for callers who asked to be warned of them only."""
    return [(b"x-serin-ignored", ", ".join(names).encode("ascii", "replace"))] if names else []
