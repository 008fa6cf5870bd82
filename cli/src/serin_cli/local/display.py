"""Shows the board to a person: a table that lives while things load on a terminal, plain lines everywhere else.

Knows nothing about where the rows come from.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serin_cli.local.board import Board, Phase, Row

PIPE_WIDTH = 250  # characters of a line that no terminal shows
PROGRESS_STEP = 0.25  # plain lines: progress is news every quarter
_STYLES = {
    Phase.STARTING: "yellow",
    Phase.READY: "green",
    Phase.DRAINING: "cyan",
    Phase.CRASHED: "red",
    Phase.STOPPED: "dim",
}


class Display:
    """Follows a board; while it is entered on a terminal, the rows are a table that is drawn again and again."""

    def __init__(self, board: Board, console: Console | None = None) -> None:
        self._board = board
        self._console = console or _PatientConsole(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._shown: dict[str, str] = {}
        board.listen(self._changed)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._console.print(Text(text))

    def _changed(self, row: Row, _: Row | None) -> None:
        if self._live is None:
            line = plain_line(row)
            if self._shown.get(row.name) != line:
                self._shown[row.name] = line
                self.say(line)

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for row in self._board.rows:
            table.add_row(row.name, Text(row.describe(), style=_STYLES[row.phase]), Text(_aside(row), style="dim"))
        return table


class _PatientConsole(Console):
    """A console that falls silent when nobody reads any more; a mesh does not end with `| head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def wide_console() -> Console:
    """A console for tables; what is read by a program is not cut to the width of a terminal that is not there."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def plain_line(row: Row) -> str:
    """A row as one line; progress in steps, so that a log does not fill with it."""
    what = row.describe()
    if row.phase is Phase.STARTING and row.progress is not None:
        what = f"{row.activity} {int(row.progress / PROGRESS_STEP) * PROGRESS_STEP:.0%}"
    return f"{row.name:<26} {what}  {_aside(row)}".rstrip()


def _aside(row: Row) -> str:
    if row.phase is Phase.READY:
        return row.address
    if row.phase is Phase.STARTING and row.num_restarts:
        return f"start {row.num_restarts + 1}"
    return ""


def seconds_since(start: float) -> str:
    """How long something took, for people."""
    return f"{time.monotonic() - start:.1f} s"
