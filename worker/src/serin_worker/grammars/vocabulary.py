"""The bytes of a model's ids, read from its folder, for grammars and for nothing else.

Knows nothing about grammars' languages, requests or tensors.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from llguidance import LLTokenizer
from serin_mesh.pieces import read_piece_table
from tokenizers import Tokenizer

from serin_worker.errors import GrammarsUnsupported


class GrammarVocabulary:
    """What grammars are followed with.

    Args:
        folder: the model's.
        num_ids: of the model's output layer; ids beyond the tokenizer's have no bytes and are never allowed.
        end_ids: ids by which the model ends; allowed exactly where a grammar accepts.

    Raises:
        GrammarsUnsupported: its decoder looks at neighbouring ids, so an id by itself has no bytes.
    """

    def __init__(self, folder: Path, num_ids: int, end_ids: Collection[int]) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        added = tokenizer.get_added_tokens_decoder()
        named = _named_special(folder)
        special = {i for i, token in added.items() if token.special or token.content in named} | set(end_ids)
        tokens = [tokenizer.id_to_token(token_id) or "" for token_id in range(num_ids)]
        decoder = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder is not None else None
        pieces = read_piece_table(decoder, tokens, frozenset(special))
        if pieces is None:
            raise GrammarsUnsupported
        self.num_ids = num_ids
        # One id more, for models without an end id: the library wants one.
        wrapper = _Wrapper([*pieces.rest, b"<end>"], min(end_ids, default=num_ids), [*special, num_ids])
        self.inner = LLTokenizer(cast(Any, wrapper), eos_token=sorted(end_ids) or [num_ids])
        wrapper.inner = self.inner


class _Wrapper:
    """A vocabulary as the library reads it; it asks for tokens of a text only where a grammar wants one spelling."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end_id: int, special: Sequence[int]) -> None:
        self.tokens = tokens
        self.eos_token_id = end_id
        self.special_token_ids = special
        self.inner: LLTokenizer | None = None

    def __call__(self, text: str) -> list[int]:
        return list(self.inner.greedy_tokenize(text)) if self.inner is not None else []


def _named_special(folder: Path) -> set[str]:
    """Tokens that a model folder names as special, wherever ``tokenizer.json`` does not say so."""
    found: set[str] = set()
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            values: dict[str, Any] = json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        for key, value in values.items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                found.add(content)
    return found
