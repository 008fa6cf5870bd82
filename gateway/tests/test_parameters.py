"""Parameters: everything the SDK can send is supported, neutral or refused by name; nothing is ignored."""

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from serin_gateway.rest.parameters import CHAT, COMPLETIONS
from serin_gateway.rest.schemas import ChatBody, CompletionBody

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
async def test_what_changes_nothing_is_accepted(front, neutral):
    """At its documented default, null, or without effect."""
    response = await front.chat(**neutral)
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
async def test_what_is_not_supported_is_refused_by_name(front, body, param, reason):
    """400 (404 for a model) with the parameter's name as the client wrote it; the next request is answered."""
    response = await front.chat(**body)
    error = response.json()["error"]
    assert (error["param"], error["reason"]) == (param, reason), error
    assert response.status_code == (404 if reason == "MODEL_NOT_FOUND" else 400)
    assert len(error["message"]) < 400
    assert front.house.workers.orders == []


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
async def test_the_same_for_completions(front, body, param, reason):
    """Their own parameters."""
    response = await front.http.post("/v1/completions", json={"model": "small"} | body)
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (400, reason), error
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    ("body", "words"),
    [({"messages": []}, "is empty"), ({"seed": 2**64}, "64 bits"), ({"seed": -(2**63) - 1}, "64 bits")],
    ids=repr,
)
async def test_refusals_are_in_our_own_words(front, body, words):
    """Not in those of a library."""
    message = (await front.chat(**body)).json()["error"]["message"]
    assert words in message
    assert "accepted" in message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'{"model": NaN}', b'{"a": 1e999}', b"\xff\xfe", b"[" * 100_000,
     b'{"a":"\\ud800"}', b'{"a":' * 500 + b"1" + b"}" * 500],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
async def test_a_body_that_is_no_request(front, body):
    """However it is broken, it is refused as such."""
    response = await front.http.post("/v1/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["reason"]) == (400, "MALFORMED_BODY")


async def test_a_key_may_ask_to_be_warned_only(front):
    """Unknown parameters are named in a header, and the answer is given."""
    key = await front.house.key(unknown="warn")
    response = await front.http.post(
        "/v1/chat/completions",
        json={"model": "small", "messages": HI, "temprature": 1, "colour": "é"},
        headers={"authorization": f"Bearer {key}"},
    )
    assert response.status_code == 200
    assert response.headers["x-serin-ignored"] == "temprature, colour"


async def test_a_conversation_goes_round(front):
    """What an answer's message holds can be sent back; parts of text, names and tool turns too."""
    first = await front.chat()
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
    assert (await front.chat(messages=turns)).status_code == 200
