"""What others wrote is shown as it stands: no markup, no emoji, no control characters, no line of its own."""

import io
import json
import os

import pytest
from serin.control.v1 import rollout_pb2
from serin_cli.__main__ import main
from serin_cli.commands import audit, key, model, tenant
from serin_cli.local.board import Board, Phase
from serin_cli.local.display import Display
from serin_cli.models.manifest import Manifest, ModelFile
from serin_cli.record import MeshRecord
from serin_cli.rollouts import shown
from serin_cli.terminal import Screen, say, screen, speak, styled
from serin_gateway.audit.entry import Entry
from serin_gateway.keys import KeyRecord, Role
from serin_gateway.keys.tenants import Directory, Organization, Project
from serin_gateway.limits.limiter import Limits

HOSTILE = "[/bold] [red]x [inc-42] :boom: a\nkey_forged admin\x1b]0;owned\x07\x9b2J\u202eback"
AS_IT_STANDS = "[/bold] [red]x [inc-42] :boom: a\\nkey_forged admin\\x1b]0;owned\\x07\\x9b2J\\u202eback"


def _keys() -> None:
    key.show([KeyRecord("key_1", "", HOSTILE, Role.APP, "web", 0.0)], as_json=False)


def _audit() -> None:
    audit.show([Entry(1, 0.0, HOSTILE, "key.create", HOSTILE, "done")], as_json=False)


def _audit_json() -> None:
    audit.show([Entry(1, 0.0, HOSTILE, "key.create", HOSTILE, "done")], as_json=True)


def _models() -> None:
    files = (ModelFile("config.json", 1, "aa"),)
    manifest = Manifest("small", "v1", files, HOSTILE, "2026-01-01", "ann@host", "bb", "cc")
    model.print_table([(manifest, "")])


def _tenants() -> None:
    tenant.print_table(Directory(1, [Organization(HOSTILE, Limits())], [Project(HOSTILE, HOSTILE, Limits())]))


def _rollout() -> rollout_pb2.Rollout:
    verdict = rollout_pb2.MetricVerdict(metric=HOSTILE, note=HOSTILE)
    return rollout_pb2.Rollout(
        rollout_id=HOSTILE, model=HOSTILE, to_version=HOSTILE, reason=HOSTILE, next=HOSTILE, verdicts=[verdict]
    )


def _picture() -> None:
    screen().show(shown.picture(_rollout()))


def _board() -> None:
    board = Board()
    with Display(board):
        board.update("worker", phase=Phase.CRASHED, problem=HOSTILE)


def _lines() -> None:
    say(HOSTILE)


@pytest.mark.parametrize("show", [_keys, _audit, _models, _tenants, _picture, _board, _lines])
def test_what_others_wrote_is_shown_as_it_stands(show, capsys):
    """Whatever prints a table or a line: every character is there, and none is a command to the terminal."""
    show()
    out = capsys.readouterr().out
    assert AS_IT_STANDS in out
    assert all(line.isprintable() for line in out.splitlines())
    assert "key_forged" not in {line.split()[0] for line in out.splitlines() if line.split()}


def test_audit_entries_as_json_hold_no_control_characters(capsys):
    """They are JSON, a line each, that reads back as what was stored."""
    _audit_json()
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.rstrip("\n").isprintable()
    assert json.loads(out)["actor"] == HOSTILE


def test_keys_as_json_are_what_the_admin_api_shows(capsys):
    """All that may be shown of each, and no digest."""
    record = KeyRecord("key_1", "f00d", HOSTILE, Role.APP, "web", 0.0)
    key.show([record], as_json=True)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert json.loads(out) == [record.shown()]
    assert "f00d" not in out


def test_logs_show_them_so_in_words_and_as_written_with_raw(state, capsys):
    """A line of JSON has them escaped; what is made of it for people does not let them out."""
    line = json.dumps({"event": "x", "model": HOSTILE})
    (state.logs / "gateway.log").write_text(f"{line}\n\x1b[31mTraceback\n")
    assert main(["logs", "--state", str(state.root)]) == 0
    words, other = capsys.readouterr().out.splitlines()
    assert words.isprintable()
    assert f"model={AS_IT_STANDS}" in words
    assert other == "\\x1b[31mTraceback"
    assert main(["logs", "--raw", "--state", str(state.root)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == line


def test_status_and_refusals_show_them_so_too(state, capsys):
    """In the table of processes, in alarms, and in the one line of an error."""
    lock = state.lock()
    try:
        process = {"name": "w", "phase": "crashed", "address": "", "pid": None, "num_restarts": 0, "started_at": 0.0}
        process |= {"problem": HOSTILE, "refusal": "", "activity": ""}
        record = MeshRecord(os.getpid(), "ready", "http://a:1", "", "", "", processes=[process], alarms=[HOSTILE])
        record.write(state)
        assert main(["status", "--state", str(state.root)]) == 1
        out = capsys.readouterr().out
        assert out.count(AS_IT_STANDS) == 2
        assert all(line.isprintable() for line in out.splitlines())
    finally:
        os.close(lock)
    assert main(["status", "--state", "/no/a\x1b]0;owned\x07\u202e"]) == 1
    assert "/no/a\\x1b]0;owned\\x07\\u202e;" in capsys.readouterr().err


def test_our_own_styles_are_drawn():
    """On a terminal a style that a command gives is drawn, around text that is no markup."""
    output = io.StringIO()
    at = Screen(file=output, force_terminal=True, width=100)
    at.show(styled(("[red]alarm[/red]", "red")))
    assert output.getvalue() == "\x1b[31m[red]alarm[/red]\x1b[0m\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_answer_commands_a_terminal(is_terminal, monkeypatch):
    """Escapes of a model are text there, lines and tabs stay; what is piped is what was said."""
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stdout", out)
    pieces = ["\x1b", "]0;mine\x07\tfam", "ily: 👩\u200d👧\nשלום\r\x9b2J"]
    for piece in pieces:
        speak(piece)
    written_out = "\\x1b]0;mine\\x07\tfamily: 👩\u200d👧\nשלום\\r\\x9b2J"
    assert out.getvalue() == (written_out if is_terminal else "".join(pieces))
