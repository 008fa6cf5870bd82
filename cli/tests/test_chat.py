"""Asking a gateway: text arrives as it is made, refusals are shown in the gateway's own words.

The gateway is a small HTTP server that speaks OpenAI's shapes.
"""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serin_cli.__main__ import main
from serin_cli.chat_client import AskError, ChatClient
from serin_cli.record import MeshRecord

KEY = "sk-serin-test"


class Gateway(BaseHTTPRequestHandler):
    """Answers with the words of the question, a piece each; `break` breaks off, `fail` fails half way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """List one model."""
        assert self.path == "/v1/models"
        self._send(200, {"object": "list", "data": [{"id": "small"}]})

    def do_POST(self):
        """Stream an answer, or refuse a wrong key."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {KEY}":
            self._send(401, {"error": {"message": "the key is wrong; `serin key create` makes one"}})
            return
        question = body["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in question.split():
            if word == "break":
                return
            event = {"error": {"message": "no worker is left"}} if word == "fail" else _piece(word)
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')

    def log_message(self, *_):
        """Say nothing."""

    def _send(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _piece(text):
    return {"choices": [{"index": 0, "delta": {"content": text + " "}, "finish_reason": None}]}


@pytest.fixture
def base_url() -> Iterator[str]:
    """Address of the small gateway."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def _ask(client, text):
    return list(client.stream("small", [{"role": "user", "content": text}]))


def test_pieces_arrive_one_by_one(base_url):
    """Each piece of the stream is given as it is."""
    with ChatClient(base_url, KEY) as client:
        assert client.models() == ["small"]
        assert _ask(client, "a b c") == ["a ", "b ", "c "]


@pytest.mark.parametrize(
    ("question", "said"),
    [("a break", "the answer broke off before its end"), ("a fail b", "the answer broke off: no worker is left")],
)
def test_an_answer_that_breaks_off_is_an_error(base_url, question, said):
    """A stream without its end is never taken for an answer."""
    with ChatClient(base_url, KEY) as client, pytest.raises(AskError, match=said):
        _ask(client, question)


def test_a_refusal_is_shown_in_the_gateways_words(base_url):
    """Status and message of the gateway's error body make the line."""
    with (
        ChatClient(base_url, "wrong") as client,
        pytest.raises(AskError, match=r"refused \(401\): the key is wrong; `serin key"),
    ):
        _ask(client, "a")


def test_nobody_there_says_where_to_look():
    """An address where nobody listens is named, with the commands that help."""
    with (
        ChatClient("http://127.0.0.1:9", KEY) as client,
        pytest.raises(AskError, match=r"127.0.0.1:9.* did not answer .*serin status"),
    ):
        client.models()


def test_one_shot_chat_prints_the_answer(base_url, state, capsys):
    """`serin chat question` prints the streamed answer and a line end, and nothing else."""
    lock = state.lock()
    MeshRecord(1, "ready", base_url.removesuffix("/v1"), "", "", "").write(state)
    state.default_key.write_text(KEY)
    try:
        assert main(["chat", "a", "b", "--state", str(state.root)]) == 0
    finally:
        os.close(lock)
    out, err = capsys.readouterr()
    assert (out, err) == ("a b \n", "")
