"""Request smuggling: a message that two readers could cut in two ways is cut in none. RFC 9112, 6.3 and 11.2."""

from collections.abc import Iterator

from security.attack import COMPLETIONS, MARK, Attack, Raw

KIND = "smuggling"
BODY = b'{"model": "tiny", "prompt": "Hi", "max_tokens": 1}'
HIDDEN = b"GET /live HTTP/1.1\r\nHost: hidden\r\n\r\n"
"""What is smuggled: the second answer would be its own."""

_POST = b"POST " + COMPLETIONS.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
_CLOSE = b"Connection: close\r\n"
_LENGTH = b"Content-Length: %d\r\n" % len(BODY)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_EMPTY = b"0\r\n\r\n"
_OFFER = b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"

LENGTHS = {
    "two equal lengths": _LENGTH + _LENGTH,
    "two lengths": _LENGTH + b"Content-Length: 5\r\n",
    "a list of lengths": b"Content-Length: 50, 50\r\n",
    "a sign": b"Content-Length: +50\r\n",
    "below 0": b"Content-Length: -1\r\n",
    "hexadecimal": b"Content-Length: 0x32\r\n",
    "two numbers": b"Content-Length: 5 0\r\n",
    "of 23 digits": b"Content-Length: 99999999999999999999999\r\n",
    "of 2^64": b"Content-Length: 18446744073709551616\r\n",
    "empty": b"Content-Length:\r\n",
    "with an underscore": b"Content-Length: 5_0\r\n",
    "a fraction": b"Content-Length: 50.0\r\n",
    "of Arabic digits": "Content-Length: ٥٠\r\n".encode(),
    "folded": b"Content-Length:\r\n 50\r\n",
    "quoted": b'Content-Length: "50"\r\n',
    "with a space before the colon": b"Content-Length : 50\r\n",
}

CODINGS = {
    "beside a length": _LENGTH + _CHUNKED,
    "before a length": _CHUNKED + _LENGTH,
    "xchunked": b"Transfer-Encoding: xchunked\r\n",
    "chunked, then identity": b"Transfer-Encoding: chunked, identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "twice": _CHUNKED + _CHUNKED,
    "twice, once unknown": _CHUNKED + b"Transfer-Encoding: cow\r\n",
    "with a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "behind a vertical tab": b"Transfer-Encoding:\x0bchunked\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n',
    "chunked by half": b"Transfer-Encoding: chunke\r\n",
    "behind a NUL": b"Transfer-Encoding: \0chunked\r\n",
    "with a bare CR": b"X: y\rTransfer-Encoding: chunked\r\n",
    "with a bare LF": b"X: y\nTransfer-Encoding: chunked\n",
    "gzip": b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n",
}

CHUNKS = {
    "a size below 0": b"-1\r\n" + BODY + b"\r\n" + _EMPTY,
    "a size of 0x32": b"0x32\r\n" + BODY + b"\r\n" + _EMPTY,
    "a size of 2^64": b"10000000000000000\r\n" + BODY + b"\r\n" + _EMPTY,
    "lines that end in LF": b"%x\n" % len(BODY) + BODY + b"\n0\n\n",
    "a space behind the size": b"%x \r\n" % len(BODY) + BODY + b"\r\n" + _EMPTY,
    "a chunk that ends elsewhere": b"%x\r\n" % len(BODY) + BODY + b"XX" + _EMPTY,
    "a size that is no number": b"zz\r\n" + BODY + b"\r\n" + _EMPTY,
    "no size": b"\r\n" + BODY + b"\r\n" + _EMPTY,
    "a size with an underscore": b"3_2\r\n" + BODY + b"\r\n" + _EMPTY,
}

HEADERS = {
    "a folded line": b"X: a\r\n folded\r\n",
    "a line folded by a tab": b"X: a\r\n\tfolded\r\n",
    "a bare CR in a value": b"X: a\rb\r\n",
    "a bare LF in a value": b"X: a\nb\r\n",
    "a NUL in a value": b"X: a\0b\r\n",
    "a NUL in a name": b"X\0: a\r\n",
    "a space before the colon": b"X : a\r\n",
    "a space in a name": b"X Y: a\r\n",
    "no colon": b"nothing\r\n",
    "no name": b": a\r\n",
    "a name of bytes above 0x7f": b"X\xff: a\r\n",
    "a name in brackets": b"(X): a\r\n",
    "a request's line": b"GET /live HTTP/1.1\r\n",
}

LINES = {
    "all lines end in LF": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "all lines end in CR": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"\r\n", b"\r") + BODY,
    "a space first": b" " + _POST + _CLOSE + _LENGTH + b"\r\n" + BODY,
    "tabs between": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b" ", b"\t", 2) + BODY,
    "HTTP/9.9": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"HTTP/1.1", b"HTTP/9.9") + BODY,
    "HTTP/1.10": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.10") + BODY,
    "HTTP/ 1.1": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"HTTP/1.1", b"HTTP/ 1.1") + BODY,
    "http/1.1": (_POST + _CLOSE + _LENGTH + b"\r\n").replace(b"HTTP/1.1", b"http/1.1") + BODY,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "Redis": b"*1\r\n$8\r\nFLUSHALL\r\n",
    "Memcached": b"flush_all\r\n\r\n",
    "SMTP": b"HELO x\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "two hosts": _POST + b"Host: y\r\n" + _CLOSE + _LENGTH + b"\r\n" + BODY,
    "no host": _POST.replace(b"Host: x\r\n", b"") + _CLOSE + _LENGTH + b"\r\n" + BODY,
}


def attacks() -> Iterator[Attack]:
    """All of them."""
    for name, lines in LENGTHS.items():
        yield Attack(KIND, f"a length, {name}", Raw(_POST + lines + _CLOSE + b"\r\n" + BODY + HIDDEN))
    for name, lines in CODINGS.items():
        yield Attack(KIND, f"a coding, {name}", Raw(_POST + lines + _CLOSE + b"\r\n" + _EMPTY + HIDDEN))
    for name, lines in (LENGTHS | CODINGS).items():
        yield Attack(KIND, f"an upgrade and framing {name}", Raw(_POST + lines + _OFFER + b"\r\n" + _EMPTY + HIDDEN))
    for name, chunks in CHUNKS.items():
        yield Attack(KIND, f"chunks, {name}", Raw(_POST + _CHUNKED + _CLOSE + b"\r\n" + chunks + HIDDEN))
    for name, lines in HEADERS.items():
        yield Attack(KIND, f"a head with {name}", Raw(_POST + lines + _LENGTH + _CLOSE + b"\r\n" + BODY))
    for name, data in LINES.items():
        yield Attack(KIND, name, Raw(data))
    yield from _read_in_one_way()


def _read_in_one_way() -> Iterator[Attack]:
    """Allowed, or not ours to refuse: the question is only that one request is one request."""
    chunk = b"%x\r\n" % len(BODY) + BODY + b"\r\n"
    shown = b"Authorization: Bearer {key}\r\n"
    stranger = _POST.replace(shown, b"")
    whole = _POST + _LENGTH + _CLOSE + b"\r\n" + BODY
    rows = {
        "a request behind the last one": Raw(whole + HIDDEN, (200,)),
        "an extension of a chunk": Raw(
            _POST + _CHUNKED + _CLOSE + b"\r\n" + chunk.replace(b"\r\n", b";a=b\r\n", 1) + _EMPTY, (200,)
        ),
        "a key as a trailer": Raw(stranger + _CHUNKED + _CLOSE + b"\r\n" + chunk + b"0\r\n" + shown + b"\r\n", (401,)),
        "a length as a trailer": Raw(
            _POST + _CHUNKED + _CLOSE + b"\r\n" + chunk + b"0\r\nContent-Length: 5\r\n\r\n" + HIDDEN, (200, 400)
        ),
        "10,000 trailers": Raw(
            _POST + _CHUNKED + _CLOSE + b"\r\n" + chunk + b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", (200,)
        ),
        "two keys, the second right": Raw(
            stranger + b"Authorization: Bearer no\r\n" + shown + _LENGTH + _CLOSE + b"\r\n" + BODY, (400,)
        ),
        "two keys, the first right": Raw(
            _POST + b"Authorization: Bearer no\r\n" + _LENGTH + _CLOSE + b"\r\n" + BODY, (400,)
        ),
        "HTTP/1.0 in chunks": Raw((_POST + _CHUNKED + b"\r\n" + _EMPTY + HIDDEN).replace(b"1.1", b"1.0", 1)),
        "a body of a GET": Raw(
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + shown + _CLOSE + b"Content-Length: 38\r\n\r\n" + HIDDEN[:38],
            (200,),
        ),
        "HTTP/0.9": Raw(b"GET /v1/models\r\n\r\n", (400, 401)),
        "an upgrade to HTTP/2": Raw(
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
            (401,),
        ),
        "an upgrade of a request with a body": Raw(_POST + _LENGTH + _OFFER + b"\r\n" + BODY + HIDDEN, (200,)),
        "an upgrade of a request in chunks": Raw(_POST + _CHUNKED + _OFFER + b"\r\n" + chunk + _EMPTY + HIDDEN, (200,)),
        "an upgrade to a web socket": Raw(
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n" + HIDDEN,
            (401,),
        ),
        "an expectation of something": Raw(_POST + _LENGTH + _CLOSE + b"Expect: 200-maybe\r\n\r\n" + BODY, (200, 417)),
        "a marked header": Raw(_POST + _LENGTH + _CLOSE + f"X-{MARK}: y\r\n\r\n".encode() + BODY, (200,)),
        "empty lines first": Raw(b"\r\n" * 3 + whole, (200,)),
    }
    for name, raw in rows.items():
        yield Attack(KIND, name, raw)
