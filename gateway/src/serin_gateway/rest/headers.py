"""Response headers that say where a caller stands. Knows nothing about how limits are counted."""

from collections.abc import Sequence

from serin_gateway.limits.limiter import Standing
from serin_gateway.rest.client import Headers


def limit_headers(standing: Standing) -> Headers:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` for the limits that are set.

    They are the limits that were applied: where these are a gateway's own share, ``x-ratelimit-scope`` says so.
    """
    limits = standing.limits
    headers: Headers = []
    for what, limit, remaining, reset_s in (
        (b"requests", limits.requests_per_minute, standing.remaining_requests, standing.reset_requests_s),
        (b"tokens", limits.tokens_per_minute, standing.remaining_tokens, standing.reset_tokens_s),
    ):
        if limit:
            headers += [
                (b"x-ratelimit-limit-" + what, str(limit).encode()),
                (b"x-ratelimit-remaining-" + what, str(remaining).encode()),
                (b"x-ratelimit-reset-" + what, f"{reset_s:.3f}s".encode()),
            ]
    if standing.is_local_share:
        headers.append((b"x-ratelimit-scope", b"local-share"))
    return headers


def ignored_headers(names: Sequence[str]) -> Headers:
    """The parameters that had no effect, for callers who asked to be warned of them only."""
    return [(b"x-serin-ignored", ", ".join(names).encode("ascii", "replace"))] if names else []
