"""How many bytes of a text one id can stand for at most, where that is bounded at all.

A text of more bytes than so many for each accepted id can be refused without encoding it. Where a tokenizer may drop,
shrink or swallow characters nothing is claimed. Knows nothing about requests.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from serin_mesh.pieces import PieceTable, byte_alphabet
from tokenizers import Tokenizer, models

NFC_SHRINKS = 3
"""Composing takes at most so many bytes for one: three letters of a Hangul syllable become a single character."""

_KEEP_ALL = frozenset({"ByteLevel", "Digits", "Metaspace"})
_KEEP_UNLESS_REMOVED = frozenset({"Split", "Punctuation"})


def longest_span(tokenizer: Tokenizer, pieces: PieceTable | None) -> int | None:
    """Most bytes of a text that one id takes up; None: that is not known of this tokenizer."""
    if pieces is None or not _covers_all_bytes(tokenizer):
        return None
    if any(token.lstrip or token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return None  # such a token swallows any number of spaces
    factor = 1
    for step in _steps(tokenizer.normalizer, "normalizers"):
        if step["type"] == "NFC":
            factor *= NFC_SHRINKS
        elif not _only_grows(step):
            return None
    for step in _steps(tokenizer.pre_tokenizer, "pretokenizers"):
        kept = step["type"] in _KEEP_UNLESS_REMOVED and step.get("behavior") != "Removed"
        if not kept and step["type"] not in _KEEP_ALL:
            return None
    return factor * max(map(len, (*pieces.first, *pieces.rest)))


def _covers_all_bytes(tokenizer: Tokenizer) -> bool:
    """Whether every byte has an id, so that none is left out or melts into an unknown one."""
    model = tokenizer.model
    if not isinstance(model, models.BPE):
        return False
    if model.byte_fallback:
        letters = [f"<0x{byte:02X}>" for byte in range(256)]
    elif any(step["type"] == "ByteLevel" for step in _steps(tokenizer.pre_tokenizer, "pretokenizers")):
        letters = list(byte_alphabet())
    else:
        return False
    return all(tokenizer.token_to_id(letter) is not None for letter in letters)


def _steps(part: Any, members: str) -> Iterator[Mapping[str, Any]]:
    if part is None:
        return
    waiting = [json.loads(part.__getstate__())]
    while waiting:
        step = waiting.pop(0)
        if step["type"] == "Sequence":
            waiting = [*step[members], *waiting]
        else:
            yield step


def _only_grows(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        old = step["pattern"].get("String")
        return old is not None and len(step["content"].encode()) >= len(old.encode())
    return step["type"] in ("Prepend", "ByteLevel")
