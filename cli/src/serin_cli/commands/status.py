"""`serin status`: what runs and how it is."""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, replace
from typing import Any

import psutil

from serin_cli.arguments import add_state, state_path
from serin_cli.local.names import CONTROL
from serin_cli.local.silence import ANSWER_S, silent
from serin_cli.record import MeshRecord, read_record
from serin_cli.state_dir import StateDir
from serin_cli.terminal import screen, styled, table

DESCRIPTION = """\
Say which processes of the mesh run, how they are and where they are reached. Each that is called ready is asked: one
that does not answer within 2 s is shown as `silent`, with an alarm that says what to do.
"""


SILENT = "silent"
"""Instead of ready: what only this command finds out."""

_MEANWHILE = {CONTROL: ": traffic goes on as it is, rollouts stand still, nothing can be configured"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the state of the mesh. Exit code 0 when everything is ready, 1 when not."""
    state = StateDir(state_path(arguments.state))
    record = read_record(state)
    record = _heard(record, asyncio.run(silent(record, state)))
    processes = [_measured(process) for process in record.processes]
    if arguments.json:
        print(json.dumps(_document(state, record, processes), indent=2))
    else:
        _print_table(state, record, processes)
    ready = record.phase == "ready" and all(process["phase"] == "ready" for process in processes)
    return 0 if ready else 1


def _heard(record: MeshRecord, hanging: frozenset[str]) -> MeshRecord:
    """The record with what hangs called so."""
    found = [process for process in record.processes if process["name"] in hanging]
    problem = {"phase": SILENT, "problem": f"does not answer within {ANSWER_S:.0f} s"}
    processes = [process | problem if process in found else process for process in record.processes]
    return replace(record, processes=processes, alarms=[*record.alarms, *map(_alarm, found)])


def _alarm(process: dict[str, Any]) -> str:
    pid, meanwhile = process["pid"], _MEANWHILE.get(process["name"], "")
    return (
        f"{process['name']} runs (pid {pid}) and does not answer within {ANSWER_S:.0f} s{meanwhile}; if somebody "
        f"stopped it, `kill -CONT {pid}` lets it go on; if it hangs, `kill -9 {pid}` has it started again"
    )


def _measured(process: dict[str, Any]) -> dict[str, Any]:
    memory = None
    if process["pid"] is not None:
        try:
            memory = psutil.Process(process["pid"]).memory_info().rss
        except psutil.Error:
            memory = None
    return {**process, "memory_bytes": memory}


def _document(state: StateDir, record: MeshRecord, processes: list[dict[str, Any]]) -> dict[str, Any]:
    shown = {key: value for key, value in asdict(record).items() if key != "state_redis"}  # it may hold a password
    return {"state": str(state.root), "openai_base_url": record.openai_base_url, **shown, "processes": processes}


def _print_table(state: StateDir, record: MeshRecord, processes: list[dict[str, Any]]) -> None:
    shown = screen()
    shown.show(f"{state.root}: {record.phase}, process {record.pid}")
    edge = f"edge {record.edge}   " if record.edge else ""
    shown.show(f"{edge}REST {record.openai_base_url}   gRPC {record.grpc}   control plane {record.control}")
    rows = table("process", "state", "address", "pid", "memory", "restarts", "up", "")
    for process in processes:
        memory, alive = process["memory_bytes"], process["pid"] is not None
        rows.add_row(
            process["name"],
            process["phase"],
            process["address"],
            str(process["pid"] or "-"),
            f"{memory / 2**20:.0f} MiB" if memory else "-",
            str(process["num_restarts"]),
            _duration(time.time() - process["started_at"]) if alive else "-",
            process["problem"] or process["refusal"] or process["activity"],
        )
    shown.show(rows)
    for alarm in record.alarms:
        shown.show(styled((f"alarm: {alarm}", "red")))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
