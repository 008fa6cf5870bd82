"""Secrets: a canary key, prompt and DSN turn up in no log, metric, trace, error, or file of a mesh."""

import asyncio
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from harness.clients import plain_http
from harness.eventually import eventually
from harness.gateway_log import GatewayLog
from harness.instances import await_instances
from harness.keys import mint
from harness.leash import leashed
from harness.running_mesh import RunningMesh
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from security.attack import COMPLETIONS, FEEDBACK, Attack, Rest, anthropic, chat, completion, generate, turns
from security.doors import open_doors
from security.senders import Senders
from serin.generation.v1 import sampling_pb2
from serin_gateway.keys import Role
from serin_gateway.testing import saying
from serin_mesh import telemetry
from serin_mesh.testing import free_port


def attempts(canary: str, **model: str) -> Iterator[Attack]:
    """Everything that takes text, with the canary in it: answered, refused early, refused late."""
    said = [{"role": "user", "content": canary}]
    told = {"messages": said, **model}
    grammar = sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_REGEX, text=f"({canary}")
    makers = {
        "chat": chat(**told),
        "stream": chat(stream=True, **told),
        "too long": chat(**(told | {"messages": [{"role": "user", "content": canary * 400}]})),
        "wrong type": chat(**(told | {"temperature": canary})),
        "wrong role": chat(**(told | {"messages": [{"role": canary, "content": canary}]})),
        "wrong content": chat(**(told | {"messages": [{"role": "user", "content": {"x": canary}}]})),
        "unknown parameter": chat(**told, **{canary: canary}),
        "unknown model": chat(**(told | {"model": canary})),
        "stop": chat(**told, stop=canary),
        "user": chat(**told, user=canary, metadata={"a": canary}, prompt_cache_key=canary),
        "salt": chat(**told, cache_salt=canary),
        "bad grammar": chat(**told, guided_regex=f"({canary}"),
        "bad schema": chat(**told, guided_json={"type": canary}),
        "choices": chat(**told, guided_choice=[canary]),
        "tool": chat(**told, tools=[{"type": "function", "function": {"name": "f", "description": canary}}]),
        "completion": completion(prompt=canary, **model),
        "echo": completion(prompt=canary, echo=True, **model),
        "message": anthropic(**told, system=canary),
        "feedback": Rest({"request_id": canary, "score": 1}, FEEDBACK),
        "no JSON": Rest(f'{{"model": {canary}'.encode(), COMPLETIONS),
        "once": replace(chat(**told), headers={"idempotency-key": canary}),
        "session": replace(chat(**told), headers={"x-session-id": canary, "user-agent": canary, "cookie": canary}),
        "call": generate(prompt=canary, **model),
        "call too long": generate(prompt=canary * 400, **model),
        "call with a bad grammar": generate(prompt=canary, grammar=grammar, **model),
        "call with a bad role": generate(chat=partial(turns, canary, role=canary), **model),
        "wrong key": replace(chat(**told), key=f"sk-serin-{canary}"),
        "wrong key of a call": replace(generate(**model), key=f"sk-serin-{canary}"),
        "wrong key in the query": replace(chat(**told), path=f"/v1/chat/completions?key={canary}"),
        "path": Rest(b"", f"/v1/models/{canary}", "GET"),
        "nowhere": Rest(b"", f"/{canary}", "GET"),
    }
    for name, by in makers.items():
        yield Attack("secrets", name, by)


async def test_nothing_of_a_canary_is_written_down(mesh: RunningMesh):
    """Logs, metrics and files of every process, after all ways to say it."""
    canary = f"canary{secrets.token_hex(12)}"
    key, _ = await mint(mesh)
    viewer, _ = await mint(mesh, role=Role.VIEWER)
    async with Senders.open(mesh.rest, mesh.grpc, key) as senders:
        outcomes = [(attack.name, await senders.send(attack)) for attack in attempts(canary)]
        assert sum(outcome.reason is None for _, outcome in outcomes) >= 8
        last = f"last-{secrets.token_hex(8)}"
        await senders.send(Attack("secrets", "last", replace(chat(), headers={"x-request-id": last})))
    await GatewayLog(mesh).finished(last)
    for secret in (canary, key, key.removeprefix("sk-serin-"), mesh.key):
        assert [path.name for path in kept_files(mesh.state) if secret.encode() in path.read_bytes()] == []
    shown = ""
    async with plain_http(timeout=30, headers={"authorization": f"Bearer {viewer}"}) as client:
        for instance in await await_instances(mesh, bool):
            shown += (await client.get(f"http://{instance.registration.http_endpoint}/metrics")).text
    assert "serin_" in shown
    for secret in (canary, key, mesh.key, "mesh.secret"):
        assert secret not in shown


def kept_files(state: Path) -> Iterator[Path]:
    """All that a mesh writes, but for the files that hold its own secrets, and the model of these tests."""
    for path in state.rglob("*"):
        if path.is_file() and path.name not in ("default.key", "mesh.secret") and path.suffix != ".safetensors":
            yield path


async def test_nothing_of_a_canary_is_traced(monkeypatch: pytest.MonkeyPatch):
    """Spans of both doors hold facts about requests, never what they said."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracers", [provider.get_tracer("test")])
    canary = f"canary{secrets.token_hex(12)}"
    async with open_doors(script=saying(f"{canary} is what I say")) as doors:
        for attack in attempts(canary, model="small"):
            await doors.senders.send(attack)
        await eventually(spans_of(exporter), lambda spans: len(spans) >= 30, "spans")
    written = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "gen_ai.operation.name" in written
    assert canary not in written
    # A receipt's sticky key stays in memory: what is written down of it is a digest.
    assert canary not in repr([replace(one, session_key="") for one in doors.house.journal.receipts])


def spans_of(exporter: InMemorySpanExporter):
    """Asks for all that was traced."""

    async def ask():
        return exporter.get_finished_spans()

    return ask


@pytest.mark.parametrize(
    "url",
    ["redis://user:{canary}@127.0.0.1:{port}/0", "http://user:{canary}@127.0.0.1"],
)
async def test_a_dsn_is_not_said_back(tmp_path: Path, url: str):
    """A gateway whose state Redis cannot be used says so without the password, in its line and in its log."""
    canary = f"canary{secrets.token_hex(12)}"
    secret = tmp_path / "secret"
    secret.write_text(secrets.token_hex(32))
    flags = ["--state-redis", url.format(canary=canary, port=free_port()), "--mesh-secret-file", str(secret)]
    flags += ["--control", f"127.0.0.1:{free_port()}", "--http-port", "0", "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *leashed([sys.executable, "-m", "serin_gateway", *flags]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while b"state" not in said and (piece := await process.stdout.read(65_536)):
                said += piece
    finally:
        if process.returncode is None:
            process.kill()
        said += await process.stdout.read()
        await process.wait()
    assert said
    assert canary.encode() not in said
