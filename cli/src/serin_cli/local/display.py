"""Shows the board to a person: a table that lives while things load on a terminal, plain lines everywhere else.

Knows nothing about where the rows come from.
"""

import time
from types import TracebackType

from serin_cli.local.board import Board, Phase, Row
from serin_cli.terminal import Live, Screen, Table, styled, table

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

    def __init__(self, board: Board, screen: Screen | None = None) -> None:
        self._board = board
        self._screen = screen or _PatientScreen(soft_wrap=True)
        self._live: Live | None = None
        self._shown: dict[str, str] = {}
        board.listen(self._changed)

    def __enter__(self) -> "Display":
        if self._screen.is_terminal:
            self._live = self._screen.redrawn(get_renderable=self._table, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def say(self, text: str) -> None:
        """Print lines of their own."""
        self._screen.show(*text.split("\n"))

    def _changed(self, row: Row, _: Row | None) -> None:
        if self._live is None:
            line = plain_line(row)
            if self._shown.get(row.name) != line:
                self._shown[row.name] = line
                self._screen.show(line)

    def _table(self) -> Table:
        rows = table("", "", "")
        for row in self._board.rows:
            rows.add_row(row.name, styled((row.describe(), _STYLES[row.phase])), styled((_aside(row), "dim")))
        return rows


class _PatientScreen(Screen):
    """A screen that falls silent when nobody reads any more; a mesh does not end with `| head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


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
