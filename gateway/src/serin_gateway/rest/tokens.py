"""`POST /tokenize` and `/detokenize`, as vLLM's clients know them. Knows nothing about how tokens are made."""

from collections.abc import Mapping
from typing import Any

import orjson
from serin_mesh.errors import Reason

from serin_gateway.ask import Ask, TokenPrompt, check, refuse
from serin_gateway.conversation import Conversation
from serin_gateway.pipeline import Request
from serin_gateway.rest.answering import read_body
from serin_gateway.rest.asks import inner_name, input_name, read_message, read_tool_choice, read_tools
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import answer_headers
from serin_gateway.rest.parameters import Neutral, only, parse
from serin_gateway.rest.schemas import DetokenizeBody, TokenizeBody
from serin_gateway.tokenization import detokenize as text_of
from serin_gateway.tokenization import tokenize as tokens_of

TOKENIZE: Mapping[str, Neutral] = {
    "chat_template": only(why="a model's own template is what its requests are written with"),
    "chat_template_kwargs": only({}, why="a template is told of tools and reasoning_effort alone"),
    "mm_processor_kwargs": only({}, why="content is text"),
}
DETOKENIZE: Mapping[str, Neutral] = {}

_OF_MESSAGES = ("tools", "tool_choice", "reasoning_effort", "add_generation_prompt", "continue_final_message")


async def tokenize(client: Client, request: Request) -> None:
    """Tell the tokens of a text or a conversation, without answering it."""
    body, ignored = parse(TokenizeBody, TOKENIZE, await read_body(client, request), request.caller.unknown)
    ask = tokenize_ask(body)
    async with client.watched():
        found = await tokens_of(
            request,
            ask,
            add_special_tokens=body.add_special_tokens is not False,
            want_bytes=bool(body.return_token_strs),
        )
    spelled = found.token_bytes
    answer = {
        "count": len(found.token_ids),
        "max_model_len": found.context_length,
        "tokens": found.token_ids,
        "token_strs": None if spelled is None else [one.decode("utf-8", "replace") for one in spelled],
    }
    await _respond(client, request, ignored, answer)


async def detokenize(client: Client, request: Request) -> None:
    """Tell the text of tokens."""
    body, ignored = parse(DetokenizeBody, DETOKENIZE, await read_body(client, request), request.caller.unknown)
    ask = detokenize_ask(body)
    async with client.watched():
        text = await text_of(request, ask)
    await _respond(client, request, ignored, {"prompt": text})


def tokenize_ask(body: TokenizeBody) -> Ask:
    """What is to be tokenized.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED with the parameter's name as the client wrote it.
    """
    if body.messages is None:
        if body.prompt is None:
            raise refuse("prompt", "is missing; accepted: prompt, a text, or messages, a conversation")
        for name in _OF_MESSAGES:
            if getattr(body, name) is not None:
                raise refuse(name, "only with messages; a prompt is tokenized as it is")
        prompt = body.prompt
        return check(Ask(body.model, [prompt], named=lambda name: input_name(name, "prompt", prompt)))
    if body.prompt is not None:
        raise refuse("messages", "only without prompt; send one of them")
    if body.add_special_tokens:
        why = "with messages only false is supported: a model's template writes its special tokens itself"
        raise refuse("add_special_tokens", why, Reason.PARAMETER_UNSUPPORTED)
    continues = bool(body.continue_final_message)
    if continues and body.add_generation_prompt:
        raise refuse("add_generation_prompt", "cannot be true with continue_final_message: the answer begins in a turn")
    conversation = Conversation(
        messages=[read_message(message) for message in body.messages],
        continues=continues,
        tools=read_tools(body.tools),
        tool_choice=read_tool_choice(body.tool_choice),
        effort=body.reasoning_effort or "",
        begins_answer=body.add_generation_prompt is not False,
    )
    return check(Ask(body.model, [conversation], named=inner_name))


def detokenize_ask(body: DetokenizeBody) -> Ask:
    """Whose text is asked for; there may be no ids at all.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name.
    """
    return check(
        Ask(body.model, [TokenPrompt(body.tokens)], named=lambda name: input_name(name, "tokens", body.tokens))
    )


async def _respond(client: Client, request: Request, ignored: list[str], answer: Mapping[str, Any]) -> None:
    client.headers += answer_headers(request.receipt, request.standing, ignored)
    # What was reserved is free before the client learns that the answer is complete.
    await request.settle()
    await client.respond(200, orjson.dumps(answer))
