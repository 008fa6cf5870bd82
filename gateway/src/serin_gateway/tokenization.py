"""Tokens as an end in themselves: what a model's tokenizer makes of a prompt, and the text of ids.

Such a request is admitted, guarded and routed as any other, but no worker is asked and no token is billed: to limits it
is a request. Knows nothing about doors.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import Ask, TokenPrompt, named_as_in, place_of, refuse
from serin_gateway.conversation import Conversation
from serin_gateway.pipeline import Attempt, Request, too_long
from serin_gateway.tokenizer import CallScope


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A prompt as ids.

    Attributes:
        token_ids: the ids.
        context_length: most ids that prompt and answer may have together.
        token_bytes: the bytes of each id by itself; None: nobody asked.
    """

    token_ids: Sequence[int]
    context_length: int
    token_bytes: Sequence[bytes] | None = None


async def tokenize(
    request: Request, ask: Ask, *, add_special_tokens: bool = True, want_bytes: bool = False
) -> Tokenization:
    """The ids of an ask's only prompt, a text or a conversation; they may be none.

    Args:
        request: whose ask it is.
        ask: what is to be tokenized.
        add_special_tokens: with those that the tokenizer adds to a text; a conversation's its template writes.
        want_bytes: what each id stands for, too.

    Raises:
        MeshError: it is refused: PROMPT_TOO_LONG with both numbers, TEMPLATE_REJECTED, …
    """
    async with _tokenizing(request, ask) as (prompt, scope):
        tokenizer = request.house.tokenizer
        try:
            if isinstance(prompt, Conversation):
                rendered = await tokenizer.render(scope, prompt)
                token_ids = rendered.token_ids
                request.receipt.unshown = [ask.named(place) for place in rendered.unshown]
            else:
                assert isinstance(prompt, str)
                token_ids = await tokenizer.encode(scope, prompt, add_special_tokens=add_special_tokens)
        except MeshError as error:
            if error.reason is not Reason.PROMPT_TOO_LONG:
                raise
            raise too_long(place_of(prompt, 0), scope.lane, error) from error
        spelled = await tokenizer.token_bytes(scope, token_ids) if want_bytes else None
        return Tokenization(token_ids, scope.lane.context_length, spelled)


async def detokenize(request: Request, ask: Ask) -> str:
    """The text of an ask's only prompt, which is ids; special ones are written out.

    Raises:
        MeshError: it is refused: PARAMETER_INVALID, ``inputs[0][i]`` is no id of the model's vocabulary;
            PROMPT_TOO_LONG, they are more than its context.
    """
    async with _tokenizing(request, ask) as (prompt, scope):
        assert isinstance(prompt, TokenPrompt)
        token_ids, most, tokenizer = prompt.token_ids, scope.lane.context_length, request.house.tokenizer
        if len(token_ids) > most:
            why = f"{len(token_ids)} of them; the model's context is {most} tokens"
            raise refuse("inputs[0]", why, Reason.PROMPT_TOO_LONG)
        size = await tokenizer.vocabulary_size(scope)
        for at, token_id in enumerate(token_ids):
            if not 0 <= token_id < size:
                why = f"{token_id} is not accepted; accepted: 0 to {size - 1}, the ids of the model's vocabulary"
                raise refuse(f"inputs[0][{at}]", why)
        return await tokenizer.decode(scope, token_ids, keep_special_tokens=True) if token_ids else ""


@asynccontextmanager
async def _tokenizing(request: Request, ask: Ask) -> AsyncIterator[tuple[Conversation | TokenPrompt | str, CallScope]]:
    """The prompt as guards let it go on, and the lane whose tokenizer is asked, for no longer than the request has."""
    await request.admit(ask, with_answer=False)
    ask = replace(await request.guard(ask), model=request.receipt.model)
    scope = Attempt(request, ask, 0).route(())
    try:
        async with asyncio.timeout(request.seconds_left):
            with request.receipt.timed("tokenize"), named_as_in(ask):
                yield ask.inputs[0], scope
    except TimeoutError:
        raise request.late() from None
