"""`serin status`: everything that stands wrong is on it."""

import json
import os

from serin_cli.__main__ import main
from serin_cli.record import MeshRecord

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
