"""Accuracy as a table of text: one row a kind, one column a model."""

from collections.abc import Mapping

from serin_worker.demo.accuracy import Accuracy


def accuracy_table(columns: Mapping[str, Accuracy]) -> str:
    """A Markdown table of percentages; all columns were asked the same questions and there is at least one."""
    kinds = next(iter(columns.values())).num_asked
    rows = [["kind", "questions", *columns]]
    for kind, asked in kinds.items():
        rows.append([kind, str(asked), *(_percent(column.by_kind[kind]) for column in columns.values())])
    total = str(sum(kinds.values()))
    rows.append(["**all**", total, *(f"**{_percent(column.overall)}**" for column in columns.values())])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
