"""What an engine twin is to our gateway, to one that asks OpenAI's HTTP interface: answers made of nothing.

    python tests/bench/fake_openai.py --port 9999 --tokens-per-s 1000000

One asyncio process without a framework. An answer has as many words as were asked for; streamed, a chunk for each, in
steps that give all streams together the rate; what its reader has not taken yet makes it wait.
"""

import argparse
import asyncio
import signal
import sys
import time

import orjson

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: "
_WORDS = [f" word{number}" for number in range(100)]


class Pace:
    """Steps of one word for every running stream, as often as the rate of all together asks for."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self.num_running = 0

    async def step(self, due: float) -> float:
        """Wait for a stream's next step; returns when the one after it is due."""
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        return due + self.num_running / self._per_s


class FakeOpenAI:
    """The server side of chat completions."""

    def __init__(self, per_s: float) -> None:
        self._pace = Pace(per_s)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its client leaves."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await _read_body(reader, head)
                if body.get("stream"):
                    await self._stream(writer, body)
                else:
                    self._answer(writer, body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, body: dict) -> None:
        count = body.get("max_tokens") or 16
        message = {"role": "assistant", "content": "".join(_WORDS[index % 100] for index in range(count))}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        content = orjson.dumps({**_shell(body, "chat.completion"), "choices": [choice], "usage": _usage(count)})
        writer.write(_HEAD + b"application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content)

    async def _stream(self, writer: asyncio.StreamWriter, body: dict) -> None:
        count = body.get("max_tokens") or 16
        shell = _shell(body, "chat.completion.chunk")
        writer.write(_HEAD + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._pace.num_running += 1
        try:
            due = time.perf_counter()
            for index in range(count):
                due = await self._pace.step(due)
                delta = {"content": _WORDS[index % 100]}
                _event(writer, {**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
                await writer.drain()
        finally:
            self._pace.num_running -= 1
        _event(writer, {**shell, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        _event(writer, {**shell, "choices": [], "usage": _usage(count)})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def _event(writer: asyncio.StreamWriter, content: dict) -> None:
    data = b"data: " + orjson.dumps(content) + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _shell(body: dict, kind: str) -> dict:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"]}


def _usage(count: int) -> dict:
    return {"prompt_tokens": 16, "completion_tokens": count, "total_tokens": 16 + count}


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> dict:
    for line in head.splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            content: dict = orjson.loads(await reader.readexactly(int(value)))
            return content
    return {}


async def _serve(port: int, per_s: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(FakeOpenAI(per_s).serve, "127.0.0.1", port, limit=1 << 20, backlog=1024)
    async with server:
        await stop.wait()


def main() -> int:
    """Serve until asked to stop."""
    parser = argparse.ArgumentParser(description="Answer chat completions with words made of nothing.")
    parser.add_argument("--port", type=int, required=True, help="port on loopback")
    parser.add_argument("--tokens-per-s", type=float, default=1e6, help="words of all streams together")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.tokens_per_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
