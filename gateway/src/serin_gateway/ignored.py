"""What had no effect on an answer, as callers are told: one bounded line of ASCII.

Knows nothing about why it had none.
"""

from collections.abc import Sequence

IGNORED_KEY = "x-serin-ignored"
"""Header over REST, trailing metadata over gRPC."""
MAX_NAMES = 32
MAX_NAME_CHARACTERS = 128


def ignored_text(names: Sequence[str]) -> str:
    """The names, the first `MAX_NAMES` of them; what no header may hold becomes a question mark."""
    shown = [_printable(name[:MAX_NAME_CHARACTERS]) for name in names[:MAX_NAMES]]
    more = [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return ", ".join([*shown, *more])


def _printable(name: str) -> str:
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in name)
