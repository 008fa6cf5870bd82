"""Waits until the processes of a version have come or gone, as the running mesh records it.

Knows the record, nothing about who starts and stops them.
"""

from collections.abc import Mapping
from typing import Any

from serin_cli.errors import CliError
from serin_cli.local.additions import Which
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir, await_condition


def await_version(state: StateDir, which: Which, num_processes: int, timeout_s: float) -> list[str]:
    """Wait until so many processes are ready; returns their names.

    Raises:
        CliError: one does not come up, or not in time; NoMesh: the mesh ended.
    """
    rows: dict[str, Mapping[str, Any]] = {}

    def arrived() -> bool:
        rows.clear()
        rows.update(_rows(state, which))
        return len(rows) == num_processes and all(row["phase"] in ("ready", "crashed") for row in rows.values())

    if not await_condition(arrived, timeout_s):
        for name, row in rows.items():
            if row["refusal"]:
                remedy = f"see `serin status`, or `serin remove {which.arguments}`"
                raise CliError(f"{name} is refused: {row['refusal']}; {remedy}")
        raise CliError(f"{which} is not ready after {timeout_s:.0f} s; it goes on starting: see `serin status`")
    for name, row in rows.items():
        if row["phase"] == "crashed":
            remedy = f"it is tried again; see `serin logs {name}`, or `serin remove {which.arguments}`"
            raise CliError(f"{name} crashed: {row['problem'] or 'it said nothing'}; {remedy}")
    return list(rows)


def await_absence(state: StateDir, which: Which, timeout_s: float) -> None:
    """Wait until no process of it is left.

    Raises:
        CliError: they still drain.
    """
    if not await_condition(lambda: not _rows(state, which), timeout_s):
        raise CliError(f"{which} still drains after {timeout_s:.0f} s; it ends when its answers are finished")


def _rows(state: StateDir, which: Which) -> dict[str, Mapping[str, Any]]:
    """The recorded processes of a version, by name."""
    prefix = f"{which.prefix}."
    return {row["name"]: row for row in read_record(state).processes if _stem(row["name"]) == prefix}


def _stem(name: str) -> str:
    """A process's name without its number: versions may hold dots, numbers do not."""
    return name.rstrip("0123456789")
