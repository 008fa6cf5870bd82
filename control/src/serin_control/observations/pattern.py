"""Patterns that end in time, whatever they are and whatever they look at. Knows nothing about answers."""

from typing import Any

import regex

from serin_control.observations.unscored import NotScored

TIMEOUT_S = 0.2


def found(pattern: str, text: str) -> bool:
    """Whether a pattern is found somewhere in a text.

    Raises:
        NotScored: it takes too long, or is none.
    """
    try:
        # Without the interpreter's lock a slow pattern holds up nobody but itself.
        match: Any = regex.search(  # type: ignore[no-untyped-call]
            pattern, text, timeout=TIMEOUT_S, concurrent=True
        )
    except TimeoutError:
        raise NotScored(f"the pattern takes longer than {TIMEOUT_S:g} s") from None
    except regex.error as error:
        raise NotScored(f"no regular expression: {error}") from error
    return match is not None
