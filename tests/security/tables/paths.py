"""Path and Host confusion: whatever a URL looks like, it is refused or asked for a key, never let through."""

from collections.abc import Iterator

from security.attack import Attack, Raw

KIND = "paths"

STRANGE = [
    b"//v1/models", b"/v1//models", b"/v1/models;x=y", b"/v1/models;", b"/v1/%2e%2e/live", b"/v1/..%2flive",
    b"/live/../v1/models", b"/live/..;/v1/models", b"/live%2f..%2fv1%2fmodels", b"/live/", b"/live;", b"/live%00",
    b"/live%20", b"/live%0a", b"/live.json", b"/LIVE", b"/Live", b"/ready%20", b"/./v1/models", b"/v1/./models",
    b"/v1/models/", b"/v1/models/%73mall", b"/v1/models/..", b"/v1/models/../../metrics", b"/v1/chat/completions/",
    b"/%76%31/models", b"/v1%2fmodels", b"/v1%5cmodels", b"/v1\\models", b"/metrics", b"/metrics/", b"/%6detrics",
    b"/metrics?x=/live", b"/metrics#/live", b"/docs", b"/openapi.json", b"/admin/keys", b"/admin/keys?role=admin",
    b"/admin/../live", b"/admin/usage", b"/live/admin/keys", b"/live?/../admin/keys&", b"/tokenize", b"/detokenize",
    b"/pause", b"/load", b"/health", b"/server_info", b"/v1/load_lora_adapter", b"/debug/pprof", b"/.env",
    b"/.git/config", b"/static/../../etc/passwd", b"/actuator/env", b"/graphql", b"/ws", b"/%", b"/%zz", b"/?",
    b"*", b"/" + b"a" * 8000, b"/" + b"../" * 2000, b"/v1/models?" + b"a=b&" * 5000,
    b"http://x/v1/models", b"http://x/live?/../v1/models", b"http://live/metrics", b"http://x@y/metrics",
    b"https://x/metrics", b"HTTP://X/metrics", b"ftp://x/metrics", b"http:///metrics", b"http://x:99999/metrics",
]  # fmt: skip
"""Without a key."""

OPEN = {b"/live?/../admin/keys&", b"http://x/live?/../v1/models"}
"""These are `/live` itself, with a query that nobody reads."""

BROKEN = [
    b"/v1/\x80\xff", b"/\x80", b"/live\xff", b"/v1/models\xc0\xae", b"/\xe2\x80\xae", b"/v1/mod\tels", b"/v1/ models",
    b"x", b"live", b"x:80", b"http://[::1/metrics", b"", b"\x00", b"/\x00",
]  # fmt: skip
"""No target at all."""

HOSTS = [b"x/live?", b"live", b"x, y", b"127.0.0.1:0", b"x@y", b"[::1", b"x" * 5000, b"\xff\xfe", b"", b"metadata"]

METHODS = [b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"PROPFIND", b"PURGE", b"SUBSCRIBE", b"HEAD"]
NO_METHODS = [b"CONNECT", b"get", b"HOSTILE7f3a", b"G\xffT", b"G" * 70_000, b"GET\x00", b"", b"PRI"]

REWRITES = [
    b"X-Original-URL: /live", b"X-Rewrite-URL: /live", b"X-Forwarded-Path: /live", b"X-Forwarded-Host: live",
    b"X-Forwarded-For: 127.0.0.1", b"X-Real-IP: 127.0.0.1", b"X-HTTP-Method-Override: GET", b"Forwarded: host=live",
    b"X-Forwarded-Prefix: /live", b"X-Envoy-Original-Path: /live", b"X-Envoy-Internal: true",
    b"X-Forwarded-Client-Cert: URI=spiffe://serin/gateway", b"X-User: admin", b"X-Serin-Role: admin",
    b"Serin-Caller: control", b"Cookie: role=admin",
]  # fmt: skip
"""What proxies say to each other, said by a stranger."""


def attacks() -> Iterator[Attack]:
    """All of them."""
    for target in STRANGE:
        statuses = (200,) if target in OPEN else (400, 401)
        yield Attack(KIND, f"GET {_short(target)}", Raw(_get(target), statuses))
    for target in BROKEN:
        # An empty target leaves a line that an old client might have sent.
        yield Attack(KIND, f"GET {_short(target)}", Raw(_get(target), (400, 401) if target == b"" else (400,)))
    for host in HOSTS:
        yield Attack(KIND, f"a host {_short(host)}", Raw(_get(b"/v1/models", host), (400, 401)))
    for method in METHODS:
        data = _get(b"/admin/keys").replace(b"GET", method)
        yield Attack(KIND, f"{method.decode()} of an admin's page", Raw(data, (401,)))
    for method in NO_METHODS:
        yield Attack(KIND, f"a method {_short(method)}", Raw(_get(b"/v1/models").replace(b"GET", method), (400, 401)))
    for line in REWRITES:
        data = _get(b"/admin/keys").replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")
        yield Attack(KIND, f"{line.decode()}", Raw(data, (401,)))


def _get(target: bytes, host: bytes = b"x/live?") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"


def _short(text: bytes) -> str:
    return repr(text if len(text) < 60 else text[:40] + b"...")[1:]
