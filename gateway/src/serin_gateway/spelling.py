"""Log-probabilities as callers read them: with the tokens' texts in place of their ids."""

from collections.abc import Sequence

from serin_gateway.events import TextLogprob
from serin_gateway.tokenizer import CallScope, Tokenizer
from serin_gateway.worker import TokenLogprob


async def spell(
    tokenizer: Tokenizer, scope: CallScope, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
) -> list[TextLogprob]:
    """One for each token, in order.

    Raises:
        MeshError: the tokenizer did not spell them.
    """
    wanted = [i for token_id, one in zip(token_ids, logprobs, strict=True) for i in _ids_of(token_id, one)]
    raws = iter(await tokenizer.token_bytes(scope, wanted))

    def spelled(logprob: float, alternatives: Sequence[TextLogprob] = ()) -> TextLogprob:
        raw = next(raws)
        return TextLogprob(raw.decode("utf-8", "replace"), raw, logprob, alternatives)

    texts = []
    for one in logprobs:
        alternatives = [spelled(logprob) for _, logprob in one.alternatives]
        texts.append(spelled(one.logprob, alternatives))
    return texts


async def pieces_of(tokenizer: Tokenizer, scope: CallScope, token_ids: Sequence[int], text: str) -> list[bytes]:
    """The bytes that each token stands for in a text, where special ones are none of it.

    Some tokenizers write a space before a text, and take it off again.

    Raises:
        MeshError: the tokenizer did not spell them.
    """
    pieces = list(await tokenizer.token_bytes(scope, token_ids, keep_special_tokens=False))
    first = next((at for at, piece in enumerate(pieces) if piece), None)
    if first is not None and pieces[first].startswith(b" ") and not text.startswith(" "):
        pieces[first] = pieces[first][1:]
    return pieces


def _ids_of(token_id: int, logprob: TokenLogprob) -> list[int]:
    return [*(alternative for alternative, _ in logprob.alternatives), token_id]
