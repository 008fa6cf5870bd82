"""Load that workers report themselves."""

import asyncio
import time

from serin_gateway.catalog import MemoryCatalog, Worker
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_catalog, small_lane
from serin_gateway.upstream import loads as module
from serin_gateway.upstream.loads import ReportedLoads
from serin_gateway.upstream.pulses import SILENT_TICKS, Pulses
from serin_mesh.load import LoadReport
from serin_mesh.testing import running


async def until(condition) -> None:
    """Wait for something that a report brings about."""
    while not condition():  # noqa: ASYNC110 - reports are followed, and tell nobody
        await asyncio.sleep(0.01)


async def test_reports_are_followed_and_forgotten(monkeypatch):
    """Workers of the catalog are listened to; one that leaves it, or falls silent, has an unknown load."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "REPORT_EVERY_S", 0.1)
    busy = {"running": 3.0, "waiting": 2.0}
    async with running(lambda server: None, load=lambda: LoadReport(named=busy)) as host:
        worker = Worker("w", host.address, "c", 8)
        catalog = MemoryCatalog(small_catalog(small_lane(workers=[worker])))
        loads = ReportedLoads(GatewaySettings(), catalog)
        watching = asyncio.create_task(loads.watch())
        await until(lambda: loads.num_sequences(host.address) == 5)
        busy["running"] = 0.0
        await until(lambda: loads.num_sequences(host.address) == 2)
        monkeypatch.setattr(module.time, "monotonic", lambda clock=time.monotonic: clock() + 60)
        assert loads.num_sequences(host.address) == 0
        monkeypatch.undo()
        catalog.publish(small_catalog(small_lane(workers=[], tokenizers=[])))
        await until(lambda: not loads._watching)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert loads.num_sequences("127.0.0.1:1") == 0


async def test_tokenizers_are_listened_to_as_well(monkeypatch):
    """Their reports are signs of life: who was taken for silent speaks again."""
    monkeypatch.setattr(module, "REPORT_EVERY_S", 0.1)
    async with running(lambda server: None, "tokenizer", load=LoadReport) as host:
        catalog, pulses = MemoryCatalog(small_catalog(small_lane(workers=[], tokenizers=[host.address]))), Pulses()
        loads = ReportedLoads(GatewaySettings(), catalog, pulses)
        pulses.heard(host.address, "tokenizer")
        for _ in range(SILENT_TICKS):
            pulses.tick()
        assert loads.is_silent(host.address)
        watching = asyncio.create_task(loads.watch())
        await until(lambda: not loads.is_silent(host.address))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
