"""What a person sees while things load."""

import io

from serin_cli.local.board import Board, Phase
from serin_cli.local.display import Display
from serin_cli.terminal import Screen


def test_plain_lines_tell_each_change_once():
    """Without a terminal every change is a line; progress is told in quarters."""
    board, output = Board(), io.StringIO()
    with Display(board, Screen(file=output, soft_wrap=True)):
        board.update("worker.small.v2.0", phase=Phase.STARTING)
        for step in range(100):
            board.update("worker.small.v2.0", activity="loading weights", progress=step / 100)
        board.update("worker.small.v2.0", phase=Phase.READY, address="127.0.0.1:1")
        board.update("worker.small.v2.0", phase=Phase.CRASHED, problem="killed")
    assert output.getvalue().splitlines() == [
        "worker.small.v2.0          starting",
        "worker.small.v2.0          loading weights 0%",
        "worker.small.v2.0          loading weights 25%",
        "worker.small.v2.0          loading weights 50%",
        "worker.small.v2.0          loading weights 75%",
        "worker.small.v2.0          ready  127.0.0.1:1",
        "worker.small.v2.0          crashed: killed",
    ]


def test_a_terminal_gets_a_table():
    """On a terminal the rows are drawn as a table with the state of each process."""
    board, output = Board(), io.StringIO()
    with Display(board, Screen(file=output, force_terminal=True, width=100)):
        board.update("gateway", phase=Phase.STARTING)
        board.update("gateway", phase=Phase.READY, address="127.0.0.1:8080")
    assert "gateway" in output.getvalue()
    assert "127.0.0.1:8080" in output.getvalue()
