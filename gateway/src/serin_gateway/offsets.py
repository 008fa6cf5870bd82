"""Where tokens begin in the text that they make. Knows nothing about tokenizers."""

import codecs


class Offsets:
    """Where each token of a text begins, in characters; one that begins inside a character begins where that does.

    Args:
        first: where the first one does.
    """

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, piece: bytes) -> int:
        """Of the next token, which stands for these bytes of the text."""
        begins = self._next
        self._next += len(self._characters.decode(piece))
        return begins
