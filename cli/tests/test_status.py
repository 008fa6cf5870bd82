"""`serin status`: everything that stands wrong is on it."""

import asyncio
import json
import os
from dataclasses import asdict, replace

from serin_cli.__main__ import main
from serin_cli.local.board import Phase, Row
from serin_cli.record import MeshRecord
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

NACK = "gateway-1 refuses the RouteConfiguration it was sent: no such action"


def test_standing_alarms_are_shown(state, capsys):
    """A client that refuses its configuration is named with its reason, in the table and in JSON."""
    lock = state.lock()
    try:
        MeshRecord(os.getpid(), "ready", "http://127.0.0.1:1", "", "", "", alarms=[NACK]).write(state)
        assert main(["status", "--state", str(state.root)]) == 0
        assert f"alarm: {NACK}" in capsys.readouterr().out
        assert main(["status", "--json", "--state", str(state.root)]) == 0
        assert json.loads(capsys.readouterr().out)["alarms"] == [NACK]
    finally:
        os.close(lock)


async def test_what_is_called_ready_and_hangs_is_named(state, hung, capsys):
    """Asked all at once; who answers is left alone, whatever it answers, and what is not ready is not asked."""
    lock = state.lock()
    try:
        async with running(lambda server: None, "worker", settings=ServiceSettings()) as worker:
            rows = [
                Row("control", Phase.READY, address=hung, pid=os.getpid()),
                Row("gateway.v2.0", Phase.READY, address=hung, pid=os.getpid()),
                Row("state-redis", Phase.READY, pid=os.getpid()),
                Row("worker.small.v1.0", Phase.READY, address=worker.address, pid=os.getpid()),
                Row("worker.small.v1.1", Phase.STARTING, address=hung, pid=os.getpid()),
            ]
            record = MeshRecord(os.getpid(), "ready", "http://127.0.0.1:1", "", hung, "")
            replace(record, processes=[asdict(row) for row in rows]).write(state)
            code = await asyncio.to_thread(main, ["status", "--json", "--state", str(state.root)])
    finally:
        os.close(lock)
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{\n") : out.rindex("\n}") + 2])  # the worker's log is around it
    phases = {process["name"]: process["phase"] for process in found["processes"]}
    assert code == 1
    assert phases == {
        "control": "silent",
        "gateway.v2.0": "silent",
        "state-redis": "silent",  # nobody listens on its socket here
        "worker.small.v1.0": "ready",
        "worker.small.v1.1": "starting",
    }
    assert [alarm.partition(" runs ")[0] for alarm in found["alarms"]] == ["control", "gateway.v2.0", "state-redis"]
    assert f"`kill -9 {os.getpid()}` has it started again" in found["alarms"][0]
