"""Metrics: every call is counted once, under names that no caller can invent."""

import pytest
from serin_mesh.errors import MeshError
from serin_mesh.metrics import registry, scrape
from serin_mesh.testing import running

UNARY = "/serin.test.v1.EchoService/Unary"


def value(name: str, **labels: str) -> float:
    """A sample's value; 0 if there is none."""
    return registry().get_sample_value(name, labels) or 0.0


async def test_calls_are_counted_by_how_they_end(echo, stub_of) -> None:
    """One more finished call under its code and reason, one more measured, none left running."""
    ok = {"method": UNARY, "code": "OK", "reason": ""}
    bad = {"method": UNARY, "code": "INVALID_ARGUMENT", "reason": "PARAMETER_INVALID"}
    before = [value("serin_rpc_finished_total", **labels) for labels in (ok, bad)]
    measured = value("serin_rpc_seconds_count", method=UNARY)
    async with running(echo.register) as server, server.connect() as channel:
        await stub_of(channel).unary(b"x")
        with pytest.raises(MeshError):
            await stub_of(channel).unary(b"fail")
    after = [value("serin_rpc_finished_total", **labels) for labels in (ok, bad)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]
    assert value("serin_rpc_seconds_count", method=UNARY) == measured + 2
    assert value("serin_rpc_running", method=UNARY) == 0


async def test_unknown_methods_create_no_series(echo) -> None:
    """A caller that tries a thousand names leaves metrics as they were."""
    async with running(echo.register) as server, server.connect() as channel:
        for number in range(5):
            with pytest.raises(MeshError):
                await channel.unary_unary(f"/serin.test.v1.EchoService/Invented{number}")(b"", timeout=5)
    assert b"Invented" not in scrape()


def test_the_process_is_measured() -> None:
    """Memory and CPU of the process are among the metrics."""
    text = scrape().decode()
    assert "process_resident_memory_bytes " in text
    assert "process_cpu_seconds_total " in text
