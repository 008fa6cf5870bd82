"""Response headers that say where a caller stands and who answers. Knows nothing about how limits are counted."""

import math
from collections.abc import Sequence

from serin_mesh.call import LANE_KEY

from serin_gateway.ignored import IGNORED_KEY, ignored_text
from serin_gateway.limits.limiter import Standing
from serin_gateway.receipt import Receipt
from serin_gateway.rest.client import Headers

MODEL_HEADER, ROUTE_HEADER = b"serin-model", b"serin-route"
LIMIT_PREFIX = b"x-ratelimit-"


def route_headers(receipt: Receipt) -> Headers:
    """The lane and the model that answer, and how the request came there where that was decided on the way."""
    headers = [(LANE_KEY.encode(), receipt.lane.encode()), (MODEL_HEADER, receipt.model.encode())]
    return [*headers, (ROUTE_HEADER, receipt.route.encode())] if receipt.route else headers


def answer_headers(receipt: Receipt, standing: Standing | None, ignored: Sequence[str]) -> Headers:
    """What stands before every answer: who answers, where the caller stands, what of the question was passed over."""
    limits = limit_headers(standing) if standing is not None else []
    return [*route_headers(receipt), *limits, *ignored_headers([*ignored, *receipt.ignored])]


def without_limits(headers: Headers) -> Headers:
    """The headers without what :func:`limit_headers` said."""
    return [(name, value) for name, value in headers if not name.startswith(LIMIT_PREFIX)]


def limit_headers(standing: Standing) -> Headers:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the tightest limits, whichever scope's they are.

    ``reset``: when the limit is whole again, a duration as the OpenAI API writes it (``17ms``, ``6m0s``). They are the
    limits that were applied: where these are a gateway's own share, ``x-ratelimit-scope`` says so.
    """
    headers: Headers = []
    for what, window in ((b"requests", standing.requests), (b"tokens", standing.tokens)):
        if window is not None:
            headers += [
                (b"x-ratelimit-limit-" + what, str(window.limit).encode()),
                (b"x-ratelimit-remaining-" + what, str(window.remaining).encode()),
                (b"x-ratelimit-reset-" + what, _duration(window.reset_s).encode()),
            ]
    if standing.is_local_share:
        headers.append((b"x-ratelimit-scope", b"local-share"))
    return headers


def _duration(seconds: float) -> str:
    """As Go writes durations: ``0s``, ``17ms``, ``59.25s``, ``6m0s``, ``23h59m59s``; never less than it is.

    Milliseconds below a minute, whole seconds above.
    """
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    minutes, rest = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def ignored_headers(names: Sequence[str]) -> Headers:
    """What was given and had no effect."""
    return [(IGNORED_KEY.encode(), ignored_text(names).encode())] if names else []
