"""The bytes that each id stands for, read from a tokenizer's own description of its decoder.

Most decoders give every token bytes of its own, whatever stands around it; then a text can grow by looking ids up.
Knows nothing about the tokenizer library: it reads ``tokenizer.json``. Decoders that look at neighbours have no piece
table, and text is decoded by the library instead (``text_stream``).
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class PieceTable:
    """Bytes of each id.

    Attributes:
        first: bytes of an id that comes first in its text.
        rest: bytes of an id anywhere else; the same list where that makes no difference.
        num_strip: number of spaces that are taken off the text's beginning.
        special: ids of special tokens.
    """

    first: Sequence[bytes]
    rest: Sequence[bytes]
    num_strip: int
    special: frozenset[int]

    def bytes_of(self, token_ids: Sequence[int], skip: Set[int]) -> bytes:
        """Bytes that ids stand for anywhere but at a text's beginning; unknown ids and those to skip have none."""
        size = len(self.rest)
        return b"".join([self.rest[i] for i in token_ids if i < size and i not in skip])


def read_piece_table(
    decoder: Mapping[str, Any] | None, tokens: Sequence[str], special: frozenset[int]
) -> PieceTable | None:
    """Read the table, or find out that this decoder has none.

    Args:
        decoder: the ``decoder`` of ``tokenizer.json``.
        tokens: token of each id; empty for an id that has none.
        special: ids of special tokens.
    """
    if decoder is None:
        rest = [b" " + token.encode() if token else b"" for token in tokens]
        return PieceTable([token.encode() for token in tokens], rest, 0, special)
    if decoder.get("type") == "ByteLevel":
        alphabet = byte_alphabet()
        same = [_from_byte_level(token, alphabet) for token in tokens]
        return PieceTable(same, same, 0, special)
    if decoder.get("type") == "Metaspace":
        return _read_metaspace(decoder, tokens, special)
    return _read_steps(decoder, tokens, special)


def _read_metaspace(decoder: Mapping[str, Any], tokens: Sequence[str], special: frozenset[int]) -> PieceTable:
    mark = decoder.get("replacement", "▁")
    rest = [token.replace(mark, " ").encode() for token in tokens]
    never = decoder.get("prepend_scheme", "always") == "never"
    first = rest if never else [token.replace(mark, "").encode() for token in tokens]
    return PieceTable(first, rest, 0, special)


def _read_steps(decoder: Mapping[str, Any], tokens: Sequence[str], special: frozenset[int]) -> PieceTable | None:
    """A chain of replacements, byte tokens and one strip at the beginning, as SentencePiece models have it."""
    steps = decoder.get("decoders", ()) if decoder.get("type") == "Sequence" else (decoder,)
    change: list[Callable[[bytes], bytes]] = []
    bytes_at: int | None = None
    num_strip = 0
    fused = False
    for step in steps:
        kind = step.get("type")
        if kind == "Fuse":
            fused = True
        elif kind == "ByteFallback" and bytes_at is None and not fused:
            bytes_at = len(change)
        elif kind == "Replace" and "String" in step.get("pattern", {}) and not fused and bytes_at is None:
            change.append(_replacement(step["pattern"]["String"], step["content"]))
        elif kind == "Strip" and fused and step.get("content") == " " and not step.get("stop"):
            num_strip += step.get("start", 0)
        else:
            return None
    if not fused and len(steps) > 1 and num_strip:
        return None
    same = [_through(token, change, bytes_at) for token in tokens]
    return PieceTable(same, same, num_strip, special)


def _replacement(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda piece: piece.replace(old.encode(), new.encode())


def _through(token: str, change: Sequence[Callable[[bytes], bytes]], bytes_at: int | None) -> bytes:
    piece = token.encode()
    for step in change:
        piece = step(piece)
    if bytes_at is not None and (match := BYTE_TOKEN.fullmatch(piece.decode())):
        return bytes([int(match[1], 16)])
    return piece


def _from_byte_level(token: str, alphabet: Mapping[str, int]) -> bytes:
    try:
        return bytes([alphabet[char] for char in token])
    except KeyError:  # an added token, written as it is
        return token.encode()


def byte_alphabet() -> dict[str, int]:
    """The printable characters that byte-level tokenizers write bytes as (GPT-2, Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + at): byte for at, byte in enumerate(others)})
    return alphabet
