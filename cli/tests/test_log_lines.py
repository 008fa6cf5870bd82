"""`serin logs`: last lines, new lines across rotation, JSON made readable."""

from itertools import islice

from serin_cli.__main__ import main
from serin_cli.log_lines import Follower, readable


def test_rotation_loses_no_line(tmp_path):
    """A follower goes on in the new file after the old one was moved away."""
    log = tmp_path / "worker.log"
    log.write_text("one\ntwo\nhal")
    follower = Follower([log], num_lines=1)
    assert [line for _, line in follower.tail()] == ["two"]
    with log.open("a") as file:
        file.write("f\n")
    assert [line for _, line in islice(follower.follow(), 1)] == ["half"]
    log.rename(tmp_path / "worker.log.1")
    log.write_text("new\n")
    assert [line for _, line in islice(follower.follow(), 1)] == ["new"]


def test_json_becomes_words():
    """Time, level and event lead; facts follow; what the file's name says already is left out."""
    line = (
        '{"event": "rpc", "level": "info", "timestamp": "2025-01-02T03:04:05.678901Z", "ms": 1.5, "service": "worker"}'
    )
    assert readable(line) == "03:04:05.678 info    rpc ms=1.5"
    assert readable("{broken") == "{broken"


def test_a_service_is_chosen_by_its_beginning(state, capsys):
    """`serin logs worker` shows the workers alone; an unknown name is refused with the names there are."""
    for name in ("worker.small.v1.0", "worker.small.v1.1", "gateway"):
        (state.logs / f"{name}.log").write_text(f"of {name}\n")
    assert main(["logs", "worker", "--state", str(state.root)]) == 0
    assert (
        capsys.readouterr().out
        == "worker.small.v1.0 | of worker.small.v1.0\nworker.small.v1.1 | of worker.small.v1.1\n"
    )
    assert main(["logs", "work", "--state", str(state.root)]) == 2
    assert "accepted: gateway, worker.small.v1.0" in capsys.readouterr().err
