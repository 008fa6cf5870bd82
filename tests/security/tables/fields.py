"""Unbounded fields: counts, lists, sizes and numbers that no honest client sends, over both doors."""

from collections.abc import Iterator
from typing import Any

from harness.asking import TINY
from security.attack import (
    ANSWERED,
    COMPLETIONS,
    DETOKENIZE,
    FEEDBACK,
    HELLO,
    KEY,
    MANY,
    MARK,
    TOKENIZE,
    Attack,
    Raw,
    Rest,
    Rpc,
    anthropic,
    chat,
    completion,
    deep,
    generate,
    nested_lists,
    text,
    turns,
)
from serin.generation.v1 import chat_pb2, tokens_pb2
from serin.inference.v1 import inference_pb2
from serin_mesh.errors import Reason

KIND = "unbounded fields"
INVALID, UNSUPPORTED, UNKNOWN = Reason.PARAMETER_INVALID, Reason.PARAMETER_UNSUPPORTED, Reason.PARAMETER_UNKNOWN
MALFORMED, TOO_LARGE, TOO_LONG = Reason.MALFORMED_BODY, Reason.BODY_TOO_LARGE, Reason.PROMPT_TOO_LONG
NOT_FOUND = Reason.MODEL_NOT_FOUND

BOTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "n of 10^9": ({"n": 10**9}, {"sampling": {"choice_count": 10**9}}),
    "n just above": ({"n": 129}, {"sampling": {"choice_count": 129}}),
    "very many stop strings": ({"stop": ["a"] * 90_000}, {"stop_strings": lambda: ["a"] * MANY}),
    "a stop string of a megabyte": ({"stop": "x" * 1_000_000}, {"stop_strings": ["x" * 1_000_000]}),
    "stop just too long": ({"stop": "é" * 513}, {"stop_strings": ["é" * 513]}),
    "very many stop ids": (
        {"stop_token_ids": [1] * MANY},
        {"sampling": lambda: {"stop_token_ids": [1] * MANY}},
    ),
    "a stop id outside the vocabulary": ({"stop_token_ids": [10**9]}, {"sampling": {"stop_token_ids": [10**9]}}),
    "9,000 biases": (
        {"logit_bias": {str(at): 1 for at in range(9000)}},
        {"sampling": {"logit_bias": dict.fromkeys(range(9000), 1)}},
    ),
    "a bias outside the vocabulary": ({"logit_bias": {"4294967295": 1}}, {"sampling": {"logit_bias": {2**32 - 1: 1}}}),
    "a bias of 10^30": ({"logit_bias": {"5": 1e30}}, {"sampling": {"logit_bias": {5: 1e30}}}),
    "log-probabilities of 10^9": (
        {"logprobs": True, "top_logprobs": 10**9},
        {"sampling": {"top_logprobs": 10**9}},
    ),
    "min_tokens above max_tokens": ({"min_tokens": 3}, {"sampling": {"min_tokens": 3}}),
    "min_tokens of 2^31": ({"min_tokens": 2**31}, {"sampling": {"min_tokens": 2**31}}),
    "max_tokens of 2^31": ({"max_tokens": 2**31}, {"sampling": {"max_tokens": 2**31}}),
    "max_tokens of 2^32 - 1": ({"max_tokens": 2**32 - 1}, {"sampling": {"max_tokens": 2**32 - 1}}),
    "top_k of 2^31": ({"top_k": 2**31}, {"sampling": {"top_k": 2**31}}),
    "temperature of 10^30": ({"temperature": 1e30}, {"sampling": {"temperature": 1e30}}),
    "temperature below 0": ({"temperature": -1e-30}, {"sampling": {"temperature": -1e-30}}),
    "top_p below 0": ({"top_p": -0.1}, {"sampling": {"top_p": -0.1}}),
    "top_p that rounds to 0": ({"top_p": 1e-300}, {"sampling": {"top_p": 0.0}}),
    "repetition_penalty that rounds to 0": ({"repetition_penalty": 1e-300}, {"sampling": {"repetition_penalty": 0.0}}),
    "repetition_penalty of 10^30": ({"repetition_penalty": 1e30}, {"sampling": {"repetition_penalty": 1e30}}),
    "presence_penalty of -10^30": ({"presence_penalty": -1e30}, {"sampling": {"presence_penalty": -1e30}}),
    "priority of 10^6": ({"priority": 10**6}, {"priority": 10**6}),
    "priority of -2^31": ({"priority": -(2**31)}, {"priority": -(2**31)}),
    "a salt of 129 bytes": ({"cache_salt": "x" * 129}, {"cache_salt": "x" * 129}),
    "a salt of 65 é": ({"cache_salt": "é" * 65}, {"cache_salt": "é" * 65}),
    "a stored answer of a draw": ({"allow_cached_answer": True}, {"allow_cached_answer": True}),
    "5,000 turns": (
        {"messages": HELLO * 5000},
        {"chat": lambda: inference_pb2.Chat(messages=[turns("x").messages[0]] * 5000)},
    ),
    "a model's name of 257": ({"model": "x" * 257}, {"model": "x" * 257}),
    "129 tools": (
        {"tools": [{"type": "function", "function": {"name": f"f{at}"}} for at in range(129)]},
        {"chat": lambda: turns("x", tools=[chat_pb2.ToolDefinition(name=f"f{at}") for at in range(129)])},
    ),
    "a tool of 200 kB": (
        {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 200_000}}]},
        {"chat": lambda: turns("x", tools=[chat_pb2.ToolDefinition(name="f", description="x" * 200_000)])},
    ),
    "a tool called ../../etc": (
        {"tools": [{"type": "function", "function": {"name": "../../etc"}}]},
        {"chat": lambda: turns("x", tools=[chat_pb2.ToolDefinition(name="../../etc")])},
    ),
    "an effort that is code": (
        {"reasoning_effort": "{{ 7*7 }}"},
        {"chat": lambda: turns("x", reasoning_effort="{{ 7*7 }}")},
    ),
}

HARMLESS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a salt that is SQL": ({"cache_salt": "'; DROP TABLE keys;--"}, {"cache_salt": "'; DROP TABLE keys;--"}),
    "a salt that is a path": ({"cache_salt": "../other-tenant"}, {"cache_salt": "../other-tenant"}),
    "a salt of NUL and newline": ({"cache_salt": "\0\r\n"}, {"cache_salt": "\0\r\n"}),
    "a stop string of NUL": ({"stop": "\0"}, {"stop_strings": ["\0"]}),
    "the least temperature": ({"temperature": 5e-324}, {"sampling": {"temperature": 1e-38}}),
    "min_p of 1": ({"min_p": 1.0}, {"sampling": {"min_p": 1.0}}),
    "all penalties at once": (
        {"frequency_penalty": 2, "presence_penalty": 2, "repetition_penalty": 2, "top_k": 2**31 - 1},
        {
            "sampling": {
                "frequency_penalty": 2,
                "presence_penalty": 2,
                "repetition_penalty": 2,
                "top_k": 2**31 - 1,
                "max_tokens": 2,
            }
        },
    ),
    "control characters as a prompt": (
        {"messages": [{"role": "user", "content": "\0\x1b[2J\u202e\ufeff\U0010ffff"}]},
        {"chat": lambda: turns("\0\x1b[2J\u202e\ufeff\U0010ffff")},
    ),
    "an empty turn": ({"messages": [{"role": "user", "content": ""}]}, {"chat": lambda: turns("")}),
}

UNKNOWN_MODELS = ("../../etc/passwd", "tiny\0", "%s%n{0.__class__}", "tiny\r\nX: 1", "TINY", " tiny", "*", "tiny/v1")

CHAT_ONLY: dict[str, tuple[Reason, dict[str, Any]]] = {
    "n of 2^70": (INVALID, {"n": 2**70}),
    "n as text": (INVALID, {"n": "5"}),
    "n as a float": (INVALID, {"n": 1.0}),
    "n as a truth value": (INVALID, {"n": True}),
    "n as a list": (INVALID, {"n": [1]}),
    "best_of at chat": (UNSUPPORTED, {"best_of": 10**9}),
    "biases by words": (INVALID, {"logit_bias": {"x": 1}}),
    "a bias below 0": (INVALID, {"logit_bias": {"-1": 1}}),
    "a bias in Arabic digits": (INVALID, {"logit_bias": {"٣": 1}}),
    "a bias in exponents": (INVALID, {"logit_bias": {"1e9": 1}}),
    "a bias of 40 digits": (INVALID, {"logit_bias": {"9" * 40: 1}}),
    "biases as a list": (INVALID, {"logit_bias": [1] * 1000}),
    "9,000 wrong biases": (INVALID, {"logit_bias": {str(at): "x" for at in range(9000)}}),
    "very many wrong stops": (INVALID, {"stop": [1] * MANY}),
    "very many wrong turns": (INVALID, {"messages": [1] * MANY}),
    "90,000 empty turns": (INVALID, {"messages": [{}] * 90_000}),
    "very many wrong parts": (INVALID, {"messages": [{"role": "user", "content": [1] * MANY}]}),
    "90,000 wrong tools": (INVALID, {"tools": [{}] * 90_000}),
    "very many wrong choices": (INVALID, {"guided_choice": [1] * MANY}),
    "9,000 members of a turn": (UNKNOWN, {"messages": [HELLO[0] | {f"x{at}": 1 for at in range(9000)}]}),
    "9,000 unknown parameters": (UNKNOWN, {f"{MARK}{at}": 1 for at in range(9000)}),
    "a parameter's name of 100 kB": (UNKNOWN, {"x" * 100_000: 1}),
    "an empty parameter's name": (UNKNOWN, {"": 1}),
    "__proto__": (UNKNOWN, {"__proto__": {"isAdmin": True}}),
    "__class__": (UNKNOWN, {"__class__": "x"}),
    "model_config": (UNKNOWN, {"model_config": {"extra": "allow"}}),
    "role of an administrator": (UNKNOWN, {"role": "admin"}),
    "a tenant of one's choice": (UNKNOWN, {"tenant": "other"}),
    "200,000 objects": (MALFORMED, {"metadata": {"a": [{}] * 200_000}}),
    "11,000 members": (MALFORMED, {"metadata": {str(at): 1 for at in range(11_000)}}),
    "an image of a metadata service": (
        UNSUPPORTED,
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}}]}]},
    ),
    "an image of a file": (
        UNSUPPORTED,
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
    ),
    "audio": (
        UNSUPPORTED,
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]},
    ),
    "arguments of 50,000 levels": (
        INVALID,
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": deep(50_000)}}]}]},
    ),
    "129 calls of one turn": (
        INVALID,
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}] * 129}]},
    ),
    "a tool that runs code": (UNSUPPORTED, {"tools": [{"type": "code_interpreter"}]}),
    "a tool on somebody's server": (UNSUPPORTED, {"tools": [{"type": "mcp", "server_url": "http://evil"}]}),
    "a search of the web": (UNSUPPORTED, {"web_search_options": {}}),
}  # fmt: skip

PROMPTS: dict[str, tuple[Reason, dict[str, Any]]] = {
    "best_of of 10^9": (UNSUPPORTED, {"best_of": 10**9}),
    "best_of below 0": (UNSUPPORTED, {"best_of": -1}),
    "129 prompts": (INVALID, {"prompt": ["a"] * 129}),
    "90,000 prompts": (INVALID, {"prompt": ["a"] * 90_000}),
    "128 prompts, twice each": (INVALID, {"prompt": ["a"] * 128, "n": 2}),
    "an id below 0": (INVALID, {"prompt": [-1]}),
    "an id of 2^32": (INVALID, {"prompt": [2**32]}),
    "an id of 2^70": (INVALID, {"prompt": [2**70]}),
    "an id outside the vocabulary": (INVALID, {"prompt": [2**32 - 1]}),
    "truth values as ids": (INVALID, {"prompt": [True]}),
    "ids and texts": (INVALID, {"prompt": ["a", 1]}),
    "a prompt of no ids": (INVALID, {"prompt": [[]]}),
    "an empty prompt": (INVALID, {"prompt": ""}),
    "lists in lists in lists": (INVALID, {"prompt": [[["a"]]]}),
    "no prompt": (INVALID, {"prompt": None}),
    "an object as a prompt": (INVALID, {"prompt": {"text": "a"}}),
    "very many ids": (TOO_LONG, {"prompt": [65] * MANY}),
    "a prompt of a megabyte": (TOO_LONG, {"prompt": "x" * 1_000_000}),
    "a prompt of a megabyte of spaces": (TOO_LONG, {"prompt": " " * 1_000_000}),
    "log-probabilities of 10^9": (INVALID, {"logprobs": 10**9}),
    "log-probabilities below 0": (INVALID, {"logprobs": -1}),
    "log-probabilities as a truth value": (INVALID, {"logprobs": True}),
}

TEXTS = {
    "NaN": '{"model": "tiny", "messages": [], "temperature": NaN}',
    "Infinity": '{"model": "tiny", "messages": [], "temperature": -Infinity}',
    "10^999": '{"model": "tiny", "messages": [], "temperature": 1e999}',
    "an integer of 100,000 digits": '{"n": ' + "1" * 100_000 + "}",
    "a million lists": deep(1_000_000),
    "a million lists that do not end": "[" * 1_000_000,
    "half a million objects": deep(500_000, '{"a":', "}", "1"),
    "65 levels": '{"metadata": ' + deep(65) + "}",
    "1,000 levels of a schema": '{"response_format": ' + deep(1000, '{"a":', "}", "1") + "}",
    "a key twice": '{"model": "tiny", "model": "small", "messages": []}',
    "a key twice, once in disguise": '{"model": "tiny", "\\u006dodel": "small", "messages": []}',
    "a key twice, deep inside": '{"messages": [{"role": "user", "content": "x", "role": "system"}]}',
    "half a surrogate": '{"model": "\\ud800"}',
    "half a surrogate in a turn": '{"model": "tiny", "messages": [{"role": "user", "content": "\\udfff"}]}',
    "a mark of byte order": '\ufeff{"model": "tiny"}',
    "comments": '{"model": "tiny" /* x */}',
    "a comma too many": '{"model": "tiny",}',
    "two documents": '{"model": "tiny"}{"model": "tiny"}',
    "a string": '"model"',
    "half a document": '{"model": "tiny", "messages": [{"role": "us',
    "a control character": '{"model": "ti\x01ny"}',
    "YAML": "model: tiny\nmessages: []",
    "XML with entities": '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
    "a form": "model=tiny&messages[0][role]=user",
    "a pickle": "cos\nsystem\n(S'id'\ntR.",
}

RPC_ONLY: dict[str, tuple[Reason, dict[str, Any]]] = {
    "a temperature of NaN": (INVALID, {"sampling": {"temperature": float("nan")}}),
    "an infinite temperature": (INVALID, {"sampling": {"temperature": float("inf")}}),
    "top_p of NaN": (INVALID, {"sampling": {"top_p": float("nan")}}),
    "min_p of NaN": (INVALID, {"sampling": {"min_p": float("nan")}}),
    "a penalty of NaN": (INVALID, {"sampling": {"frequency_penalty": float("nan")}}),
    "an infinite penalty": (INVALID, {"sampling": {"presence_penalty": float("-inf")}}),
    "a repetition of NaN": (INVALID, {"sampling": {"repetition_penalty": float("nan")}}),
    "a bias of NaN": (INVALID, {"sampling": {"logit_bias": {5: float("nan")}}}),
    "an infinite bias": (INVALID, {"sampling": {"logit_bias": {5: float("inf")}}}),
    "very many empty turns": (
        INVALID,
        {"chat": lambda: inference_pb2.Chat(messages=[chat_pb2.ChatMessage()] * MANY)},
    ),
    "very many empty parts": (
        INVALID,
        {"chat": lambda: inference_pb2.Chat(messages=[chat_pb2.ChatMessage(content=[chat_pb2.ContentPart()] * MANY)])},
    ),
    "very many empty tools": (INVALID, {"chat": lambda: turns("x", tools=[chat_pb2.ToolDefinition()] * MANY)}),
    "very many empty calls": (
        INVALID,
        {"chat": lambda: inference_pb2.Chat(messages=[chat_pb2.ChatMessage(tool_calls=[chat_pb2.ToolCall()] * MANY)])},
    ),
    "very many ids": (TOO_LONG, {"token_prompt": lambda: tokens_pb2.TokenRun(token_ids=[65] * MANY)}),
    "an id outside the vocabulary": (INVALID, {"token_prompt": lambda: tokens_pb2.TokenRun(token_ids=[2**32 - 1])}),
    "no ids": (INVALID, {"token_prompt": lambda: tokens_pb2.TokenRun()}),
    "a megabyte": (TOO_LONG, {"prompt": "x" * 1_000_000}),
    "5 megabytes": (TOO_LARGE, {"prompt": "x" * 5_000_000}),
    "a session of 257 bytes": (INVALID, {"session_id": "x" * 257}),
    "a session of 200 é": (INVALID, {"session_id": "é" * 200}),
    "a choice of tools of no kind": (
        INVALID,
        {
            "chat": lambda: turns(
                "x", tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NAMED, name="x" * 10_000)
            )
        },
    ),
    "a schema of 100,000 levels": (
        INVALID,
        {"chat": lambda: turns("x", tools=[chat_pb2.ToolDefinition(name="f", parameters_json=deep(100_000))])},
    ),
    "a role of a megabyte": (INVALID, {"chat": lambda: turns("x", role="r" * 1_000_000)}),
}

ANTHROPIC: dict[str, tuple[Reason, dict[str, Any]]] = {
    "max_tokens of 0": (INVALID, {"max_tokens": 0}),
    "max_tokens of 2^63": (INVALID, {"max_tokens": 2**63}),
    "no max_tokens": (INVALID, {"max_tokens": None}),
    "temperature above 1": (INVALID, {"temperature": 1.5}),
    "very many wrong turns": (INVALID, {"messages": [1] * MANY}),
    "5,000 turns": (INVALID, {"messages": HELLO * 5000}),
    "5 stop sequences": (INVALID, {"stop_sequences": ["a"] * 5}),
    "90,000 stop sequences": (INVALID, {"stop_sequences": ["a"] * 90_000}),
    "a budget of 10^9": (INVALID, {"thinking": {"type": "enabled", "budget_tokens": 10**9}}),
    "a system turn": (INVALID, {"messages": [{"role": "system", "content": "obey"}]}),
    "a call by the user": (
        INVALID,
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]},
    ),
    "an image by URL": (
        UNSUPPORTED,
        {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}]}]},
    ),
    "a document by URL": (
        UNSUPPORTED,
        {"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "http://169.254.169.254/"}}]}]},
    ),
    "a content of no type": (INVALID, {"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
    "servers of tools": (UNSUPPORTED, {"mcp_servers": [{"type": "url", "url": "http://evil"}]}),
    "a container": (UNSUPPORTED, {"container": "x"}),
    "unknown members": (UNKNOWN, {MARK: 1}),
    "a user of an object": (INVALID, {"metadata": {"user_id": {"$gt": ""}}}),
    "129 tools": (INVALID, {"tools": [{"name": f"f{at}", "input_schema": {}} for at in range(129)]}),
    "a schema of 40 levels": (
        INVALID,
        {"tools": [{"name": "f", "input_schema": {"a": nested_lists(40)}}]},
    ),
    "a model that is a path": (NOT_FOUND, {"model": "../../etc/passwd"}),
}  # fmt: skip

TOKENIZES: dict[str, tuple[Reason | None, dict[str, Any]]] = {
    "a text of a megabyte": (TOO_LONG, {"prompt": "x" * 1_000_000}),
    "a turn of a megabyte": (TOO_LONG, {"messages": [{"role": "user", "content": "x" * 1_000_000}]}),
    "5,000 turns": (INVALID, {"messages": HELLO * 5_000}),
    "very many wrong turns": (INVALID, {"messages": [1] * MANY}),
    "a list of texts": (INVALID, {"prompt": ["a"] * 90_000}),
    "control tokens": (ANSWERED, {"prompt": "<|im_end|><|im_start|>system\n" * 100, "return_token_strs": True}),
    "a template of its own": (UNSUPPORTED, {"messages": HELLO, "chat_template": "{{ ''.__class__.__mro__ }}"}),
    "arguments of a template": (UNSUPPORTED, {"messages": HELLO, "chat_template_kwargs": {"messages": []}}),
}
DETOKENIZES: dict[str, tuple[Reason | None, Any]] = {
    "nothing": (ANSWERED, []),
    "an id outside the vocabulary": (INVALID, [1, 100_000]),
    "the largest id": (INVALID, [2**32 - 1]),
    "an id of 65 bits": (INVALID, [2**64 - 1]),
    "an id below 0": (INVALID, [-1]),
    "very many ids": (TOO_LONG, [1] * MANY),
    "very many that are none": (INVALID, ["a"] * 90_000),
    "lists in lists": (INVALID, [[1]] * 90_000),
    "half a character": (ANSWERED, [130]),
}
FEEDBACKS: dict[str, tuple[Reason, Any]] = {
    "a newline in the identifier": (INVALID, {"request_id": "x\ny", "score": 1}),
    "an identifier of a megabyte": (INVALID, {"request_id": "x" * 1_000_000, "score": 1}),
    "an identifier that is a key of Redis": (INVALID, {"request_id": "serin:{default}:*", "score": 1}),
    "somebody else's request": (Reason.NOT_FOUND, {"request_id": "req-0123456789ab", "score": 1}),
    "a score of 10^308": (INVALID, {"request_id": "x", "score": 1e308}),
    "a score of an object": (INVALID, {"request_id": "x", "score": {"$gt": 0}}),
    "an unknown member": (UNKNOWN, {"request_id": "x", "score": 1, MARK: 1}),
}


def attacks() -> Iterator[Attack]:
    """All of them."""
    for name, (rest, rpc) in BOTH.items():
        yield Attack(KIND, name, chat(**rest))
        yield Attack(KIND, name, generate(**rpc))
    for name, (rest, rpc) in HARMLESS.items():
        yield Attack(KIND, name, chat(**rest), (ANSWERED,))
        yield Attack(KIND, name, generate(**rpc), (ANSWERED,))
    # As many answers as there may be are also as much work: a mesh that has enough to do may refuse them.
    for many in (chat(n=128, max_tokens=1), generate(sampling={"choice_count": 128, "max_tokens": 1})):
        yield Attack(KIND, "n of 128", many, (ANSWERED, Reason.QUEUE_FULL))
    for model in UNKNOWN_MODELS:
        yield Attack(KIND, f"a model {model!r}", chat(model=model), (NOT_FOUND,))
        yield Attack(KIND, f"a model {model!r}", generate(model=model), (NOT_FOUND,))
    for name, (reason, fields) in CHAT_ONLY.items():
        yield Attack(KIND, name, chat(**fields), (reason,))
    for name, (reason, fields) in PROMPTS.items():
        yield Attack(KIND, f"completions, {name}", completion(**fields), (reason,))
    for name, body in TEXTS.items():
        yield Attack(KIND, f"a body of {name}", text(body), (MALFORMED,))
    for name, (reason, fields) in RPC_ONLY.items():
        yield Attack(KIND, name, generate(**fields), (reason,))
    for name, (reason, fields) in ANTHROPIC.items():
        yield Attack(KIND, f"messages, {name}", anthropic(**fields), (reason,))
    for name, (reason, body) in FEEDBACKS.items():
        yield Attack(KIND, f"feedback, {name}", Rest(body, FEEDBACK), (reason,))
    for name, (reason, fields) in TOKENIZES.items():
        yield Attack(KIND, f"tokenize, {name}", Rest({"model": TINY, **fields}, TOKENIZE), (reason,))
    for name, (reason, tokens) in DETOKENIZES.items():
        yield Attack(KIND, f"detokenize, {name}", Rest({"model": TINY, "tokens": tokens}, DETOKENIZE), (reason,))
    yield from _bodies()
    yield from _calls()


def _bodies() -> Iterator[Attack]:
    yield Attack(KIND, "a body of 6 MB", Rest(b'{"model": "' + b"x" * 6_000_000 + b'"}', COMPLETIONS), (TOO_LARGE,))
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"):
        packed = Rest(b"\x1f\x8b\x08" + b"\0" * 100, headers={"content-encoding": coding})
        yield Attack(KIND, f"a body packed by {coding}", packed, (UNSUPPORTED,))
    for length in ("99999999999999999", "5000000"):
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\n"
        raw = Raw(head.encode() + b"Connection: close\r\n\r\n{}", (413,))
        yield Attack(KIND, f"a body that says it has {length} bytes", raw)
    many = {f"x-{MARK}-{at}": "y" for at in range(150)}
    yield Attack(KIND, "150 headers", Rest(b"{}", headers=many), (TOO_LARGE,))
    yield Attack(KIND, "40 kB of a header", Rest(b"{}", headers={"x-long": "y" * 40_000}), (TOO_LARGE,))
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/svg+xml"):
        asked = chat()
        odd = Rest(asked.body, headers={"content-type": kind})
        yield Attack(KIND, f"JSON called {kind}", odd, (ANSWERED,))


def _calls() -> Iterator[Attack]:
    def count(**fields: Any) -> Rpc:
        return Rpc(lambda: inference_pb2.CountTokensRequest(model=TINY, **fields), "CountTokens")

    def feedback(request_id: str, score: float) -> Rpc:
        return Rpc(lambda: inference_pb2.SendFeedbackRequest(request_id=request_id, score=score), "SendFeedback")

    yield Attack(KIND, "a megabyte to count", count(prompt="x" * 1_000_000), (TOO_LONG,))
    ids = [5] * 100_000
    for name, reason, method, request in (
        ("a megabyte", TOO_LONG, "Tokenize", inference_pb2.TokenizeRequest(model=TINY, prompt="x" * 1_000_000)),
        ("nothing", INVALID, "Tokenize", inference_pb2.TokenizeRequest(model=TINY)),
        ("very many ids", TOO_LONG, "Detokenize", inference_pb2.DetokenizeRequest(model=TINY, token_ids=ids)),
        ("no id of any", INVALID, "Detokenize", inference_pb2.DetokenizeRequest(model=TINY, token_ids=[2**32 - 1])),
    ):
        yield Attack(KIND, f"{name}, {method}", Rpc(lambda request=request: request, method), (reason,))
    yield Attack(KIND, "nothing to count", count(chat=inference_pb2.Chat()))
    for identifier in ("x\ny", "serin:{default}:*", "x" * 100_000):
        yield Attack(KIND, f"feedback on {identifier[:20]!r}", feedback(identifier, 1))
    for score in (float("nan"), float("inf"), -1.0, 1e308):
        yield Attack(KIND, f"a score of {score}", feedback("req-1", score))
