"""The tokenizer of a model folder: texts to ids, ids to text and bytes.

Wraps the ``tokenizers`` library, which works without Python's lock; knows nothing about templates or gRPC.
"""

import json
from collections.abc import Sequence, Set
from typing import Any

from serin_mesh.pieces import PieceTable, read_piece_table
from tokenizers import AddedToken, Tokenizer

from serin_tokenizer_svc.errors import FolderRefused, PromptTooLong, TemplateRejected
from serin_tokenizer_svc.folder import ModelFolder
from serin_tokenizer_svc.longest import longest_span
from serin_tokenizer_svc.text_stream import PieceStream, TextStream, WindowStream


class Vocabulary:
    """Ids and the text they stand for.

    Attributes:
        size: number of ids, added tokens and gaps included.
        added_tokens: id and special flag of each added token, by its text.
        end_token_ids: ids that end an answer.
        pieces: bytes of each id; None if this decoder looks at neighbours.
        longest_span: most bytes of a text that one id takes up; None: not known.

    Raises:
        FolderRefused: ``tokenizer.json`` is damaged, or contradicts ``tokenizer_config.json``.
    """

    def __init__(self, folder: ModelFolder) -> None:
        file = folder.path / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_buffer(folder.tokenizer_json)
        except Exception as error:  # the library raises bare Exception
            raise FolderRefused(f"{file}: not a readable tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._name_special_tokens(folder)
        self.size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if self.size == 0:
            raise FolderRefused(f"{file}: the vocabulary is empty")
        added = self._tokenizer.get_added_tokens_decoder()
        self.added_tokens = {token.content: (token_id, token.special) for token_id, token in added.items()}
        self._special = frozenset(token_id for token_id, token in added.items() if token.special)
        self.end_token_ids = folder.end_token_ids or self._own_end_ids(folder)
        tokens = [self._tokenizer.id_to_token(token_id) or "" for token_id in range(self.size)]
        self.pieces: PieceTable | None = read_piece_table(self._describe_decoder(), tokens, self._special)
        self.longest_span = longest_span(self._tokenizer, self.pieces)

    def encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Ids of each text. Takes long for long texts: call it off the event loop."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def refuse_hopeless(self, texts: Sequence[str], max_tokens: int, parameter: str) -> None:
        """Refuse text that has too many bytes for so many ids, without encoding it; ``max_tokens`` 0: no limit.

        Raises:
            PromptTooLong: with the least number of ids that it could become.
        """
        if not max_tokens or self.longest_span is None:
            return
        num_bytes = sum(len(text.encode()) for text in texts)
        least = -(-num_bytes // self.longest_span)
        if least > max_tokens:
            raise PromptTooLong(least, max_tokens, parameter, at_least=True)

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of a text that comes in pieces (:meth:`ControlTokens.split`), the plain ones without added tokens.

        Raises:
            TemplateRejected: the tokenizer makes a control token from its plain characters.
        """
        newline = self._encode_normal("\n")
        ids = self._encode_normal(pieces[0][0])
        for piece, is_plain in pieces[1:]:
            encode = self._encode_plain if is_plain else self._encode_normal
            # Behind a newline no tokenizer adds the space it adds at a text's beginning.
            behind_newline = encode("\n" + piece)
            at = len(newline)
            piece_ids = behind_newline[at:] if behind_newline[:at] == newline else encode(piece)
            if is_plain and self.added_tokens[piece][0] in piece_ids:
                raise TemplateRejected(f"the conversation contains the control token {piece!r}")
            ids += piece_ids
        return ids

    def _encode_normal(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode_plain(self, text: str) -> list[int]:
        """Ids of the characters as they are: no added token is recognised."""
        if self._tokenizer.normalizer is not None:
            text = self._tokenizer.normalizer.normalize_str(text)
        words = [text]
        if self._tokenizer.pre_tokenizer is not None:
            words = [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in self._tokenizer.model.tokenize(word)]

    def decode(self, token_ids: Sequence[int], keep_special: bool) -> tuple[str, bytes]:
        """Text of a whole id sequence, and the bytes its ids stand for; ids that stand for nothing are left out.

        The bytes are those that the ids have anywhere in a text: a space that a decoder takes off a text's beginning
        is among them, so the bytes of one id by itself are those it adds to an answer.
        """
        if self.pieces is None:
            text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=not keep_special)
            return text, text.encode()
        whole = PieceStream(self.pieces, keep_special).take_bytes(token_ids)
        skip = frozenset[int]() if keep_special else self.pieces.special
        return whole.decode("utf-8", "replace"), self.pieces.bytes_of(token_ids, skip)

    def stream(self, keep_special: bool, shown: Set[int] = frozenset(), *, goes_on: bool = False) -> TextStream:
        """A stream that decodes ids as they come; special ids that are ``shown`` are written out all the same.

        Where it goes on from another text, a space is not taken off its beginning.
        """
        if self.pieces is not None:
            return PieceStream(self.pieces, keep_special, shown, goes_on=goes_on)
        return WindowStream(
            lambda ids: str(self._tokenizer.decode(ids, skip_special_tokens=not (keep_special or shown))),
            lambda token_id: token_id in shown or self._is_visible(token_id, keep_special),
        )

    def _is_visible(self, token_id: int, keep_special: bool) -> bool:
        return bool(self._tokenizer.id_to_token(token_id)) and (keep_special or token_id not in self._special)

    def _describe_decoder(self) -> dict[str, Any] | None:
        decoder = self._tokenizer.decoder
        return None if decoder is None else json.loads(decoder.__getstate__())

    def _name_special_tokens(self, folder: ModelFolder) -> None:
        """Named special tokens of the vocabulary are special, even where ``tokenizer.json`` does not say so."""
        named = set(folder.special_tokens.values())
        known = {token for token in named if self._tokenizer.token_to_id(token) is not None}
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        if known - added:
            self._tokenizer.add_special_tokens(
                [AddedToken(token, special=True, normalized=False) for token in sorted(known - added)]
            )

    def _own_end_ids(self, folder: ModelFolder) -> tuple[int, ...]:
        token = folder.special_tokens.get("eos_token")
        token_id = self._tokenizer.token_to_id(token) if token else None
        return () if token_id is None else (token_id,)
