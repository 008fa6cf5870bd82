"""Parameters: everything the SDK can send is supported, neutral or refused by name; nothing is ignored."""

import json
from typing import get_args

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import ResponseIncludable, response_create_params
from serin_gateway.rest.anthropic.schemas import MessagesBody
from serin_gateway.rest.parameters import CHAT, COMPLETIONS, RESPONSES, parse
from serin_gateway.rest.responses.schemas import Includable, ResponseBody
from serin_gateway.rest.schemas import ChatBody, CompletionBody
from serin_mesh.errors import MeshError, Reason

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")

HI = [{"role": "user", "content": "hi"}]


def test_every_parameter_of_the_sdk_has_its_place():
    """A parameter that a new SDK adds fails here until somebody decides about it."""
    chat = set(chat_create_params.CompletionCreateParamsStreaming.__annotations__)
    assert chat - set(ChatBody.model_fields) - set(CHAT) == set()
    completions = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert completions - set(CompletionBody.model_fields) - set(COMPLETIONS) == set()
    assert not set(ChatBody.model_fields) & set(CHAT)
    assert not set(CompletionBody.model_fields) & set(COMPLETIONS)


@pytest.mark.parametrize(
    "neutral",
    [
        {"logprobs": False, "top_logprobs": 0},
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"tools": []},
        {"tool_choice": "none"},
        {"safety_identifier": "x"},
        {"verbosity": "medium"},
        {"reasoning_effort": "none"},
        {"modalities": ["text"]},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"prompt_cache_key": "k"},
        {"stream_options": None},
        {"stop": None},
        {"stop": []},
        {"n": None},
        {"logit_bias": {}},
        {"logit_bias": {"0": 0, "10": 0}},
        {"logit_bias": None},
        {"temperature": None},
        {"tools": None},
        {"audio": None},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"stream": False},
        {"top_p": 1},
    ],
    ids=repr,
)
@ONE_LOOP
async def test_what_changes_nothing_is_accepted(shared_front, neutral):
    """At its documented default, null, or without effect."""
    response = await shared_front.chat(**neutral)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "PARAMETER_UNSUPPORTED"),
        ({"tool_choice": "required"}, "tool_choice", "PARAMETER_INVALID"),
        ({"functions": [{"name": "f"}]}, "functions", "PARAMETER_UNSUPPORTED"),
        ({"store": True}, "store", "PARAMETER_UNSUPPORTED"),
        ({"service_tier": "flex"}, "service_tier", "PARAMETER_UNSUPPORTED"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "PARAMETER_UNSUPPORTED"),
        ({"modalities": ["text", "audio"]}, "modalities", "PARAMETER_UNSUPPORTED"),
        ({"guided_json": 5}, "guided_json", "PARAMETER_INVALID"),
        ({"guided_choice": ["a", 1]}, "guided_choice[1]", "PARAMETER_INVALID"),
        ({"guided_backend": "x"}, "guided_backend", "PARAMETER_UNKNOWN"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "PARAMETER_INVALID"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "PARAMETER_INVALID"),
        ({"structured_outputs": {"xml": 1}}, "structured_outputs.xml", "PARAMETER_UNKNOWN"),
        ({"best_of": 2}, "best_of", "PARAMETER_UNSUPPORTED"),
        ({"web_search_options": {}}, "web_search_options", "PARAMETER_UNSUPPORTED"),
        ({"metadata": "text"}, "metadata", "PARAMETER_UNSUPPORTED"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "PARAMETER_UNSUPPORTED",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "PARAMETER_UNSUPPORTED",
        ),
        ({"temprature": 1}, "temprature", "PARAMETER_UNKNOWN"),
        ({"x" * 500: None}, "x" * 64, "PARAMETER_UNKNOWN"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "PARAMETER_UNKNOWN"),
        ({"messages": [{"role": "user", "content": "a", "colour": 1}]}, "messages[0].colour", "PARAMETER_UNKNOWN"),
        ({"temperature": "hot"}, "temperature", "PARAMETER_INVALID"),
        ({"temperature": True}, "temperature", "PARAMETER_INVALID"),
        ({"temperature": 2.1}, "temperature", "PARAMETER_INVALID"),
        ({"top_p": 0}, "top_p", "PARAMETER_INVALID"),
        ({"top_k": -1}, "top_k", "PARAMETER_INVALID"),
        ({"top_k": 1.5}, "top_k", "PARAMETER_INVALID"),
        ({"min_p": 1.1}, "min_p", "PARAMETER_INVALID"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "PARAMETER_INVALID"),
        ({"presence_penalty": 1e300}, "presence_penalty", "PARAMETER_INVALID"),
        ({"repetition_penalty": 0}, "repetition_penalty", "PARAMETER_INVALID"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {"53": -100, "053": 100}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {"00": 1}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {"4294967296": 1}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias", "PARAMETER_INVALID"),
        ({"logit_bias": [1]}, "logit_bias", "PARAMETER_INVALID"),
        ({"seed": 1.5}, "seed", "PARAMETER_INVALID"),
        ({"seed": 2**70}, "seed", "PARAMETER_INVALID"),
        ({"n": 0}, "n", "PARAMETER_INVALID"),
        ({"n": 129}, "n", "PARAMETER_INVALID"),
        ({"n": 10**30}, "n", "PARAMETER_INVALID"),
        ({"max_tokens": 0}, "max_tokens", "PARAMETER_INVALID"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "PARAMETER_INVALID"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "PARAMETER_INVALID"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens", "PARAMETER_INVALID"),
        ({"stop": ""}, "stop", "PARAMETER_INVALID"),
        ({"stop": ["a", ""]}, "stop", "PARAMETER_INVALID"),
        ({"stop": list("abcde")}, "stop", "PARAMETER_INVALID"),
        ({"stop": "x" * 1025}, "stop", "PARAMETER_INVALID"),
        ({"stop": 5}, "stop", "PARAMETER_INVALID"),
        ({"stop": [5]}, "stop[0]", "PARAMETER_INVALID"),
        ({"stop_token_ids": list(range(65))}, "stop_token_ids", "PARAMETER_INVALID"),
        ({"stop_token_ids": [-1]}, "stop_token_ids", "PARAMETER_INVALID"),
        ({"top_logprobs": 2}, "top_logprobs", "PARAMETER_INVALID"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "PARAMETER_INVALID"),
        ({"logprobs": 3}, "logprobs", "PARAMETER_INVALID"),
        ({"priority": 101}, "priority", "PARAMETER_INVALID"),
        ({"cache_salt": "x" * 129}, "cache_salt", "PARAMETER_INVALID"),
        ({"stream": "yes"}, "stream", "PARAMETER_INVALID"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "PARAMETER_INVALID"),
        ({"model": 5}, "model", "PARAMETER_INVALID"),
        ({"model": ""}, "model", "PARAMETER_INVALID"),
        ({"model": "nope"}, "model", "MODEL_NOT_FOUND"),
        ({"messages": []}, "messages", "PARAMETER_INVALID"),
        ({"messages": "hi"}, "messages", "PARAMETER_INVALID"),
        ({"messages": [5]}, "messages[0]", "PARAMETER_INVALID"),
        ({"messages": [{"content": "a"}]}, "messages[0].role", "PARAMETER_INVALID"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", "PARAMETER_INVALID"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "PARAMETER_INVALID"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "PARAMETER_INVALID"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id", "PARAMETER_INVALID"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "PARAMETER_INVALID",
        ),
    ],
    ids=lambda value: repr(value)[:48],
)
@ONE_LOOP
async def test_what_is_not_supported_is_refused_by_name(shared_front, body, param, reason):
    """400 (404 for a model) with the parameter's name as the client wrote it; the next request is answered."""
    num_orders = len(shared_front.house.workers.orders)
    response = await shared_front.chat(**body)
    error = response.json()["error"]
    assert (error["param"], error["reason"]) == (param, reason), error
    assert response.status_code == (404 if reason == "MODEL_NOT_FOUND" else 400)
    assert len(error["message"]) < 400
    assert len(shared_front.house.workers.orders) == num_orders


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": None}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": []}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": [[]]}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": [-1]}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": [1, "a"]}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": [True]}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": ["a"] * 129}, "prompt", "PARAMETER_INVALID"),
        ({"prompt": ["a"] * 65, "n": 2}, "n", "PARAMETER_INVALID"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "PARAMETER_INVALID"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "PARAMETER_UNSUPPORTED"),
        ({"prompt": "a", "best_of": 3}, "best_of", "PARAMETER_UNSUPPORTED"),
        ({"prompt": "a", "messages": HI}, "messages", "PARAMETER_UNKNOWN"),
    ],
    ids=lambda value: repr(value)[:40],
)
@ONE_LOOP
async def test_the_same_for_completions(shared_front, body, param, reason):
    """Their own parameters."""
    response = await shared_front.http.post("/v1/completions", json={"model": "small"} | body)
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (400, reason), error
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    ("body", "words"),
    [({"messages": []}, "is empty"), ({"seed": 2**64}, "64 bits"), ({"seed": -(2**63) - 1}, "64 bits")],
    ids=repr,
)
@ONE_LOOP
async def test_refusals_are_in_our_own_words(shared_front, body, words):
    """Not in those of a library."""
    message = (await shared_front.chat(**body)).json()["error"]["message"]
    assert words in message
    assert "accepted" in message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'{"model": NaN}', b'{"a": 1e999}', b"\xff\xfe", b"[" * 100_000,
     b'{"a":"\\ud800"}', b'{"a":' * 500 + b"1" + b"}" * 500],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
@ONE_LOOP
async def test_a_body_that_is_no_request(shared_front, body):
    """However it is broken, it is refused as such."""
    response = await shared_front.http.post("/v1/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["reason"]) == (400, "MALFORMED_BODY")


@ONE_LOOP
async def test_a_key_may_ask_to_be_warned_only(shared_front):
    """Unknown parameters are named in a header, and the answer is given."""
    key = await shared_front.house.key(unknown="warn")
    response = await shared_front.http.post(
        "/v1/chat/completions",
        json={
            "model": "small",
            "temprature": 1,
            "colour": "é",
            "messages": [{"role": "user", "content": "hi", "colour": 1}],
        },
        headers={"authorization": f"Bearer {key}"},
    )
    assert response.status_code == 200
    assert response.headers["x-serin-ignored"] == "messages[0].colour, temprature, colour"


@pytest.mark.parametrize(
    ("model", "body", "places"),
    [
        (ChatBody, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}], "c": 2}]},
         ["messages[0].c", "messages[0].content[0].b"]),
        (ChatBody, {"messages": HI, "zz": 0, "tools": [{"type": "function", "function": {"name": "f", "d": 1}}],
                    "tool_choice": {"type": "function", "function": {"name": "f"}, "e": {"f": 1}}},
         ["tools[0].function.d", "tool_choice.e", "zz"]),
        (ChatBody, {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "schema": {"any": "thing"}, "g": 1}}}, ["response_format.json_schema.g"]),
        (CompletionBody, {"prompt": [1, 2], "stream_options": {"h": 1}}, ["stream_options.h"]),
        (ResponseBody, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "i": 1}]}],
                        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"any": 1}, "k": 1}}},
         ["input[0].content[0].i", "text.format.k"]),
        (MessagesBody, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "j": 1}]}],
                        "max_tokens": 5}, ["messages[0].content[0].j"]),
    ],
)  # fmt: skip
def test_members_inside_of_objects_are_judged_as_all_others(model, body, places):
    """Named by their place to whom that is enough, refused by the same name to everybody else."""
    text = json.dumps({"model": "small", **body}).encode()
    parsed, ignored = parse(model, {}, text, "warn")
    assert ignored == places
    with pytest.raises(MeshError) as refused:
        parse(model, {}, text)
    assert refused.value.reason is Reason.PARAMETER_UNKNOWN
    assert refused.value.metadata["parameter"] in places
    assert parsed.model == "small"


@ONE_LOOP
async def test_what_was_ignored_fits_a_header(shared_front):
    """However many names there are, and whatever is in them."""
    key = await shared_front.house.key(unknown="warn")
    odd = {"a\r\nset-cookie: x": 1, "é": 1, "l" * 1000: 1} | {f"x{n}": n for n in range(1000)}
    response = await shared_front.http.post(
        "/v1/chat/completions",
        json={"model": "small", "messages": HI, **odd},
        headers={"authorization": f"Bearer {key}"},
    )
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    named = response.headers["x-serin-ignored"].split(", ")
    assert named[:4] == ["a??set-cookie: x", "?", "l" * 128, "x0"]
    assert named[-1] == "and 971 more"


@ONE_LOOP
async def test_a_conversation_goes_round(shared_front):
    """What an answer's message holds can be sent back; parts of text, names and tool turns too."""
    first = await shared_front.chat()
    message = first.json()["choices"][0]["message"]
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "name": "x", "content": [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        message,
        {"role": "assistant", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]  # fmt: skip
    assert (await shared_front.chat(messages=turns)).status_code == 200


ASKED = {"type": "message", "role": "user", "content": "hi"}
CALLED = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
FUNCTION = {"type": "function", "name": "f"}


def test_every_parameter_of_responses_has_its_place():
    """A parameter that a new SDK adds fails here until somebody decides about it."""
    known = set(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert known - set(ResponseBody.model_fields) - set(RESPONSES) == set()
    assert not set(ResponseBody.model_fields) & set(RESPONSES)
    assert set(get_args(ResponseIncludable)) == set(get_args(Includable))


@pytest.mark.parametrize(
    "neutral",
    [
        {"background": False},
        {"truncation": "disabled"},
        {"service_tier": "auto"},
        {"context_management": []},
        {"conversation": None},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"prompt_cache_retention": "24h"},
        {"max_tool_calls": 3},
        {"safety_identifier": "x"},
        {"reasoning": {"effort": "none", "summary": None, "context": "auto", "mode": "standard"}},
        {"reasoning": None},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"include": ["reasoning.encrypted_content", "web_search_call.results"]},
        {"include": []},
        {"top_logprobs": 0},
        {"tools": []},
        {"tool_choice": "none"},
        {"parallel_tool_calls": True},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"metadata": {"k" * 64: "v" * 512}},
        {"instructions": None},
        {"previous_response_id": None},
        {"store": True},
        {"max_output_tokens": None},
        {"input": [{"role": "user", "content": "a"}]},
        {"input": [{"role": "assistant", "content": "a", "phase": "commentary"}, ASKED]},
        {"input": [CALLED, {"type": "function_call_output", "call_id": "c1", "output": "", "status": None}]},
        {"input": [CALLED | {"async": False, "caller": {"type": "direct"}, "namespace": None},
                   {"type": "function_call_output", "call_id": "c1", "output": "1", "caller": None}]},
        {"seed": 5, "top_k": 3, "min_p": 0.1, "priority": 1, "cache_salt": "s"},
    ],
    ids=repr,
)  # fmt: skip
@ONE_LOOP
async def test_what_responses_accept(shared_front, neutral):
    """At its documented default, null, or without effect."""
    response = await shared_front.http.post("/v1/responses", json={"model": "small", "input": "hi"} | neutral)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"background": True}, "background", "PARAMETER_UNSUPPORTED"),
        ({"conversation": "conv_1"}, "conversation", "PARAMETER_UNSUPPORTED"),
        ({"prompt": {"id": "p"}}, "prompt", "PARAMETER_UNSUPPORTED"),
        ({"truncation": "auto"}, "truncation", "PARAMETER_UNSUPPORTED"),
        ({"service_tier": "flex"}, "service_tier", "PARAMETER_UNSUPPORTED"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "PARAMETER_UNSUPPORTED"),
        ({"moderation": {"model": "m"}}, "moderation", "PARAMETER_UNSUPPORTED"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options", "PARAMETER_UNSUPPORTED"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "PARAMETER_UNSUPPORTED"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "PARAMETER_UNSUPPORTED"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "PARAMETER_INVALID"),
        ({"reasoning": {"depth": 1}}, "reasoning.depth", "PARAMETER_UNKNOWN"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "PARAMETER_UNSUPPORTED"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "PARAMETER_UNSUPPORTED"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "PARAMETER_INVALID"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name",
         "PARAMETER_INVALID"),
        ({"include": ["everything"]}, "include[0]", "PARAMETER_INVALID"),
        ({"top_logprobs": 2}, "top_logprobs", "PARAMETER_INVALID"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs", "PARAMETER_INVALID"),
        ({"max_output_tokens": 0}, "max_output_tokens", "PARAMETER_INVALID"),
        ({"max_tool_calls": 0}, "max_tool_calls", "PARAMETER_INVALID"),
        ({"metadata": {"k": 1}}, "metadata.k", "PARAMETER_INVALID"),
        ({"metadata": {f"{n}": "" for n in range(17)}}, "metadata", "PARAMETER_INVALID"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "PARAMETER_INVALID"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options", "PARAMETER_INVALID"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation",
         "PARAMETER_UNSUPPORTED"),
        ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options.include_usage",
         "PARAMETER_UNKNOWN"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools[0].type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [FUNCTION | {"name": "a b"}]}, "tools[0].name", "PARAMETER_INVALID"),
        ({"tools": [FUNCTION]}, "tools", "PARAMETER_UNSUPPORTED"),
        ({"tool_choice": "required"}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [
            {"type": "function", "name": "g"}]}}, "tool_choice.tools[0].name", "PARAMETER_INVALID"),
        ({"input": None}, "input", "PARAMETER_INVALID"),
        ({"input": []}, "input", "PARAMETER_INVALID"),
        ({"input": 5}, "input", "PARAMETER_INVALID"),
        ({"input": [5]}, "input[0]", "PARAMETER_INVALID"),
        ({"input": [{"id": "msg_1"}]}, "input[0].role", "PARAMETER_INVALID"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "PARAMETER_UNSUPPORTED"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type", "PARAMETER_UNSUPPORTED"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "PARAMETER_INVALID"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content", "PARAMETER_INVALID"),
        ({"input": [{"role": "user", "content": "a", "colour": 1}]}, "input[0].colour", "PARAMETER_UNKNOWN"),
        ({"input": [ASKED | {"content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type",
         "PARAMETER_UNSUPPORTED"),
        ({"input": [ASKED | {"content": [{"type": "input_text"}]}]}, "input[0].content[0].text", "PARAMETER_INVALID"),
        ({"input": [CALLED]}, "input[0]", "PARAMETER_INVALID"),
        ({"input": [CALLED | {"arguments": "[" * 9999}, {"type": "function_call_output", "call_id": "c1", "output": ""}
         ]}, "input[0].arguments", "PARAMETER_INVALID"),
        ({"input": [{"type": "function_call_output", "call_id": "c1", "output": ""}]}, "input[0].call_id",
         "PARAMETER_INVALID"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input[0].encrypted_content",
         "PARAMETER_UNSUPPORTED"),
        ({"temperature": 2.1}, "temperature", "PARAMETER_INVALID"),
        ({"store": "yes"}, "store", "PARAMETER_INVALID"),
        ({"n": 2}, "n", "PARAMETER_UNKNOWN"),
        ({"messages": HI}, "messages", "PARAMETER_UNKNOWN"),
        ({"model": "nope"}, "model", "MODEL_NOT_FOUND"),
        ({"input": "x" * 5000}, "input", "PROMPT_TOO_LONG"),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
@ONE_LOOP
async def test_what_responses_refuse_by_name(shared_front, body, param, reason):
    """400 (404 for a model) with the parameter's name as the client wrote it; nothing is done."""
    num_orders = len(shared_front.house.workers.orders)
    response = await shared_front.http.post("/v1/responses", json={"model": "small", "input": "hi"} | body)
    error = response.json()["error"]
    assert (error["param"], error["reason"]) == (param, reason), error
    assert response.status_code == (404 if reason == "MODEL_NOT_FOUND" else 400)
    assert len(error["message"]) < 400
    assert len(shared_front.house.workers.orders) == num_orders


@pytest.mark.parametrize(
    ("query", "param", "reason"),
    [
        ("?stream=true", "stream", "PARAMETER_UNSUPPORTED"),
        ("?starting_after=3", "starting_after", "PARAMETER_UNSUPPORTED"),
        ("?include_obfuscation=true", "include_obfuscation", "PARAMETER_UNSUPPORTED"),
        ("?include[]=all", "include", "PARAMETER_INVALID"),
        ("?colour=1", "colour", "PARAMETER_UNKNOWN"),
        ("?stream[]=false", "stream[]", "PARAMETER_UNKNOWN"),
        ("?" + "&".join(["include=reasoning.encrypted_content"] * 17), "query", "PARAMETER_INVALID"),
        ("/input_items?limit=0", "limit", "PARAMETER_INVALID"),
        ("/input_items?limit=101", "limit", "PARAMETER_INVALID"),
        ("/input_items?limit=x", "limit", "PARAMETER_INVALID"),
        ("/input_items?order=up", "order", "PARAMETER_INVALID"),
        ("/input_items?after=msg_1", "after", "PARAMETER_INVALID"),
        ("/input_items?before=msg_1", "before", "PARAMETER_UNKNOWN"),
    ],
)
@ONE_LOOP
async def test_queries_of_responses_are_refused_by_name(shared_front, query, param, reason):
    """Of responses that there are."""
    made = (await shared_front.http.post("/v1/responses", json={"model": "small", "input": "hi"})).json()
    response = await shared_front.http.get(f"/v1/responses/{made['id']}{query}")
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["reason"]) == (400, param, reason), error


@ONE_LOOP
async def test_nothing_is_made_in_the_background(shared_front):
    """Cancelling says so, by name."""
    made = (await shared_front.http.post("/v1/responses", json={"model": "small", "input": "hi"})).json()
    response = await shared_front.http.post(f"/v1/responses/{made['id']}/cancel")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "background")
