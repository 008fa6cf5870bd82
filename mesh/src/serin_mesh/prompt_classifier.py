"""A small linear classifier of prompts, and the text that it travels in: whether a prompt is of some kind.

Logistic regression over hashed character n-grams (the hashing trick, Weinberger et al. 2009; n-grams in the manner of
Cavnar and Trenkle 1994), weights in 8 bits, so that a whole classifier is a few kilobytes of text inside `serin.yaml`.
It is trained elsewhere. Knows nothing about what the kinds mean, nor about cascades.
"""

import base64
import binascii
import math
import struct
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "ngrams1."
"""What the text begins with: the format's name and version."""
END_CHARACTERS = 512
"""Of a longer prompt the first and the last so many are looked at: time stays below about 2 ms."""
MIN_BITS, MAX_BITS = 8, 16
MAX_GRAM = 4
_HEADER = struct.Struct(">BBBff")
_CHECK = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PromptClassifier:
    """A classifier.

    Attributes:
        bits: there are ``2**bits`` buckets, 8 to 16.
        shortest, longest: characters of an n-gram, 1 to 4.
        bias: the score of a prompt without weights, in natural log-odds.
        scale: what one unit of a weight is worth.
        weights: int8, one a bucket.
    """

    bits: int
    shortest: int
    longest: int
    bias: float
    scale: float
    weights: "array[int]"

    def probability(self, text: str) -> float:
        """How likely the prompt is of the kind, 0 to 1."""
        buckets = buckets_of(text, self.bits, self.shortest, self.longest)
        if not buckets:
            return _sigmoid(self.bias)
        weights = self.weights
        return _sigmoid(self.bias + self.scale * sum(weights[at] for at in buckets) / math.sqrt(len(buckets)))

    def to_text(self) -> str:
        """As it is written into a configuration."""
        body = _HEADER.pack(self.bits, self.shortest, self.longest, self.bias, self.scale) + self.weights.tobytes()
        return PREFIX + base64.b64encode(body + _CHECK.pack(zlib.crc32(body))).decode()

    @classmethod
    def from_text(cls, text: str) -> "PromptClassifier":
        """Read it back.

        Raises:
            ValueError: it is none, or is damaged; says what is wrong.
        """
        if not text.startswith(PREFIX):
            raise ValueError(f"does not begin with {PREFIX!r}")
        try:
            whole = base64.b64decode(text[len(PREFIX) :], validate=True)
        except binascii.Error as error:
            raise ValueError(f"is no base64: {error}") from error
        body, check = whole[: -_CHECK.size], whole[-_CHECK.size :]
        if len(body) < _HEADER.size or _CHECK.pack(zlib.crc32(body)) != check:
            raise ValueError("is cut or damaged: its check sum is another")
        bits, shortest, longest, bias, scale = _HEADER.unpack_from(body)
        if not (MIN_BITS <= bits <= MAX_BITS and 1 <= shortest <= longest <= MAX_GRAM):
            raise ValueError("has another shape than is known here")
        if len(body) != _HEADER.size + 2**bits or not (math.isfinite(bias) and math.isfinite(scale)):
            raise ValueError("has another size than it says")
        return cls(bits, shortest, longest, bias, scale, array("b", body[_HEADER.size :]))


def buckets_of(text: str, bits: int, shortest: int, longest: int) -> list[int]:
    """The buckets of a text's different n-grams, letters' case aside, each once, ascending."""
    mask = 2**bits - 1
    return sorted({zlib.crc32(gram) & mask for gram in _grams(_ends(text).casefold(), shortest, longest)})


def _ends(text: str) -> str:
    if len(text) <= 2 * END_CHARACTERS:
        return text
    return text[:END_CHARACTERS] + "\n" + text[-END_CHARACTERS:]


def _grams(text: str, shortest: int, longest: int) -> Iterable[bytes]:
    for length in range(shortest, longest + 1):
        for at in range(len(text) - length + 1):
            yield text[at : at + length].encode("utf-8", "surrogatepass")


def _sigmoid(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-score)) if score > -700 else 0.0
