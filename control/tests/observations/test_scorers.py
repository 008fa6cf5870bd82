"""Answers are scored as their case declares, in bounded time, and nothing is fetched but a webhook's score."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from serin_control.observations import scorers
from serin_control.observations.scorers import DeclaredScorer
from serin_control.observations.unscored import NotScored
from serin_control.rollouts.golden_set import GoldenCase


def case(scorer: str, expected) -> GoldenCase:
    """A question with one scorer."""
    return GoldenCase("case-1", (("user", "2+2="),), scorer, expected)


NAME = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}}}


@pytest.mark.parametrize(
    ("scorer", "expected", "answer", "score"),
    [
        ("exact", "4", " 4\n", 1),
        ("exact", " 4 ", "4", 1),
        ("exact", "4", "four", 0),
        ("regex", r"\b4\b", "It is 4.", 1),
        ("regex", "^4", "It is 4.", 0),
        ("schema", NAME, '{"name": "Serin"}', 1),
        ("schema", NAME, '{"name": "serin"}', 0),
        ("schema", NAME, '{"nom": "Serin"}', 0),
        ("schema", NAME, "no JSON", 0),
        ("schema", NAME, "[" * 100_000, 0),
        ("schema", {"patternProperties": {"^n": {"type": "integer"}}}, '{"n": "1"}', 0),
        ("schema", {"patternProperties": {"^n": {"type": "integer"}}}, '{"n": 1, "m": "1"}', 1),
        ("schema", {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, "3", 1),
    ],
)
async def test_what_is_right_scores_one(scorer, expected, answer, score):
    """And what is wrong zero."""
    assert await DeclaredScorer().score(case(scorer, expected), answer) == score


@pytest.mark.parametrize(
    ("scorer", "expected", "why"),
    [
        ("regex", "(a|aa)+$", "the pattern takes longer than"),
        ("schema", {"type": "string", "pattern": "(a|aa)+$"}, "the pattern takes longer than"),
        ("schema", {"type": "strange"}, "no JSON Schema"),
        ("schema", {"$ref": "http://127.0.0.1:1/schema"}, "the schema cannot be used"),
        ("schema", {"$ref": "#/nowhere"}, "the schema cannot be used"),
    ],
)
async def test_what_cannot_be_scored_says_why(scorer, expected, why):
    """A pattern without an end, a schema that is none or leads elsewhere: the answer counts for nobody."""
    answer = "a" * 200 + "!"
    with pytest.raises(NotScored, match=why):
        await DeclaredScorer().score(case(scorer, expected), answer if scorer == "regex" else json.dumps(answer))


@asynccontextmanager
async def webhook(reply: bytes | None):
    """A server that answers everything with these bytes, or never; yields its address and what it was sent."""
    heard: list[bytes] = []
    over, answered = asyncio.Event(), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length"))
        heard.append(head + await reader.readexactly(int(length)))
        if reply is None:
            await over.wait()
        writer.write(reply or b"")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/score?x=1", heard
        over.set()
        await asyncio.gather(*answered, return_exceptions=True)


def ok(body: bytes) -> bytes:
    """A response with status 200."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_webhook_is_sent_question_and_answer():
    """And says the score."""
    async with webhook(ok(b'{"score": 0.75}')) as (address, heard):
        assert await DeclaredScorer().score(case("webhook", address), "four") == 0.75
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /score?x=1 HTTP/1.1")
    assert json.loads(body) == {"id": "case-1", "prompt": [{"role": "user", "content": "2+2="}], "answer": "four"}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (ok(b'{"score": 2}'), "no score from 0 to 1"),
        (ok(b'{"score": true}'), "no score from 0 to 1"),
        (ok(b"[]"), "no score from 0 to 1"),
        (ok(b"yes"), "JSONDecodeError"),
        (ok(b" " * 70_000), "more than 65536 bytes"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
        (b"nonsense\r\n\r\n", "BadStatusLine"),
        (None, "no answer within 0.2 s"),
    ],
)
async def test_a_webhook_that_does_not_score_is_named(reply, why, monkeypatch):
    """No redirect is followed, no answer waited for without an end, none believed that is no score."""
    monkeypatch.setattr(scorers, "WEBHOOK_TIMEOUT_S", 0.2 if reply is None else 5.0)
    async with webhook(reply) as (address, _):
        with pytest.raises(NotScored, match=why) as failed:
            await DeclaredScorer().score(case("webhook", address), "four")
        assert str(failed.value).startswith(address)


async def test_a_webhook_that_is_not_there_is_named():
    """Nobody listens."""
    with pytest.raises(NotScored, match="Refused"):
        await DeclaredScorer().score(case("webhook", "http://127.0.0.1:1/"), "four")
