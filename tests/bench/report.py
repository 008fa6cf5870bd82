"""Prints a benchmark's results as tables and keeps them as JSON. Knows nothing about how they were measured."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: Sequence[str] = ()) -> None:
    """Print one table with notes under it."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console(width=120)
    console.print(table)
    for note in notes:
        console.print(f"  {note}", highlight=False)
    console.file.flush()  # into a file, too, each table is there when it was found


def keep(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, with the machine they were measured on."""
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n", encoding="utf-8")
    Console().print(f"written: {path}", highlight=False)


def _cell(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
