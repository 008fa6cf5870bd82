"""Special tokens that a caller writes into a conversation stay plain text: only the template's own are tokens.

Control tokens in the caller's strings are wrapped in two marks before the template runs; afterwards the text is cut
at the marks, and what stood between them is encoded as the characters it is. As ``sanitize_control_tokens`` of
transformers does. Knows nothing about templates or encoding.
"""

import re
from collections.abc import Collection
from typing import Any

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Marks: noncharacters, which Unicode keeps for a program's own use and no text contains."""
_ANY_OPEN, _ANY_CLOSE = rf"(?:{OPEN}|\\+ufdd0)", rf"(?:{CLOSE}|\\+ufdd1)"
"""Marks as they are, or as JSON in pure ASCII and Python's own way of showing strings escape them."""


class ControlTokens:
    """The tokens that only a template may write."""

    def __init__(self, tokens: Collection[str]) -> None:
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        either = "|".join(re.escape(token) for token in longest_first) or "(?!)"
        self._token = re.compile(either)
        self._marked = re.compile(f"{_ANY_OPEN}({either}){_ANY_CLOSE}|[{OPEN}{CLOSE}]")

    def mark(self, value: Any) -> Any:
        """Wrap control tokens in every string inside a JSON value, keys of objects included."""
        if isinstance(value, str):
            if OPEN in value or CLOSE in value:
                value = value.replace(OPEN, "").replace(CLOSE, "")
            return self._token.sub(f"{OPEN}\\g<0>{CLOSE}", value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        return value

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Cut rendered text into (piece, whether it is plain characters), marks and empty pieces left out.

        A mark that lost its partner in the template still cuts, so that its two sides cannot join into a token.
        The first piece is always there and never plain; it may be empty.
        """
        pieces = self._marked.split(text)
        cut = [(piece, at % 2 == 1) for at, piece in enumerate(pieces)]
        return cut[:1] + [(piece, is_plain) for piece, is_plain in cut[1:] if piece]
