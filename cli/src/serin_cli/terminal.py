"""What people are shown: lines and tables in which no text is markup, commands the terminal or forges a line.

Whatever is drawn passes here: nothing else imports rich. Knows nothing about what is shown.
"""

import sys
import unicodedata
from collections.abc import Collection
from typing import Any, TextIO

from rich.console import Console, Group
from rich.console import RenderableType as Shown
from rich.live import Live
from rich.table import Table
from rich.text import Text
from serin_mesh.one_line import escaped

__all__ = ["Live", "Screen", "Shown", "Table", "say", "screen", "speak", "stacked", "styled", "table"]

PIPE_WIDTH = 250  # characters of a line that no terminal shows

Part = str | tuple[str, str]
"""Text, or text and our own style of it."""


class Screen(Console):
    """A console to which every plain string, in a cell as on a line, is one line of text as it stands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich makes of any string that it meets."""
        return super().render_str(escaped(text), **{**options, "markup": False, "emoji": False, "highlight": False})

    def show(self, *shown: Shown) -> None:
        """Print each on a line of its own."""
        for one in shown:
            self.print(one)

    def redrawn(self, **options: Any) -> Live:
        """A place that is drawn again and again."""
        return Live(console=self, **options)


def screen() -> Screen:
    """Standard output; what is read by a program is not cut to the width of a terminal that is not there."""
    found = Screen()
    return found if found.is_terminal else Screen(width=PIPE_WIDTH)


def say(text: str, to: TextIO | None = None) -> None:
    """Print a line that holds what others wrote, at once and as wide as it is."""
    print(escaped(text), file=to or sys.stdout, flush=True)


def speak(piece: str) -> None:
    """Print a piece of a model's answer where the last one ended: as it stands, but commands to a terminal as text."""
    if sys.stdout.isatty():
        piece = "".join(one if one in "\n\t" or unicodedata.category(one) != "Cc" else escaped(one) for one in piece)
    print(piece, end="", flush=True)


def styled(*parts: Part) -> Text:
    """A line of parts, some in a style of ours."""
    return Text.assemble(*(escaped(part) if isinstance(part, str) else (escaped(part[0]), part[1]) for part in parts))


def stacked(*shown: Shown) -> Group:
    """Some things below each other."""
    return Group(*shown)


def table(*headings: str, wraps: Collection[str] = ("",), right: Collection[str] = ()) -> Table:
    """A table without rules; cells are added with `add_row`.

    Args:
        headings: of its columns; empty: the column has none.
        wraps: headings of columns that may take several lines.
        right: headings of columns of numbers.
    """
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_header=any(headings))
    for heading in headings:
        made.add_column(
            heading,
            no_wrap=heading not in wraps,
            overflow="fold" if heading in wraps else "ellipsis",
            justify="right" if heading in right else "left",
        )
    return made
