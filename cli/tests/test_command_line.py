"""The command line: every refusal is one line with the key, the value and what is accepted, exit code 2."""

import pytest
from serin_cli.__main__ import COMMANDS, main


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["upp"], "serin: 'upp': accepted: up, env, "),
        (["up", "--port", "abc"], "serin up: --port: 'abc': accepted: an integer from 0 to 65535"),
        (["up", "--port", "65536"], "serin up: --port: '65536': accepted: an integer from 0 to 65535"),
        (["up", "--workers=0"], "serin up: --workers: '0': accepted: an integer from 1 to 256"),
        (
            ["up", "--state-redis", "localhost"],
            "serin up: --state-redis: 'localhost': accepted: redis://, rediss:// or unix://",
        ),
        (["up", "--prot", "1"], "serin up: --prot: unknown flag (did you mean --port?); accepted: "),
        (["up", "-f", "x.yaml", "--model", "m"], "serin up: --model: 'm': accepted: only without -f"),
        (
            ["up", "--port", "23999", "--grpc-port", "23999"],
            "serin up: --grpc-port: 23999: accepted: another port than",
        ),
        (["up", "--edge-port", "1"], "serin up: --edge-port: '1': accepted: only together with --edge"),
        (
            ["up", "--edge", "--edge-cert", "c.pem"],
            "serin up: --edge-cert: 'c.pem': accepted: --edge-cert and --edge-key together, or neither",
        ),
        (["certs", "--host", "a b"], "serin certs: --host: 'a b': accepted: a DNS name or an IP address"),
        (["certs", "--host", ""], "serin certs: --host: '': accepted: a DNS name or an IP address"),
        (["certs", "--model", "a/b"], "serin certs: --model: 'a/b': accepted: 1 to 64 of a-z 0-9 . _ -"),
        (
            ["key", "create", "--role", "app", "--name", "a\x1b[2J\n"],
            "serin key create: --name: 'a\\x1b[2J\\n': accepted: text that can be printed on one line",
        ),
        (["add", "wroker", "--version", "v2"], "serin add: SERVICE: 'wroker': accepted: worker, tokenizer, cache"),
        (["add", "worker", "--model", "small"], "serin add: the following arguments are required: --version"),
        (["add", "worker", "--version", "v2"], "serin add: --model: not set: accepted: the model of the worker"),
        (["add", "cache", "--version", "v2", "--model", "small"], "serin add: --model: 'small': accepted: nothing for"),
        (
            ["remove", "worker", "--model", "small", "--version", "a b"],
            "serin remove: --version: 'a b': accepted: 1 to",
        ),
        (["model", "push", "Small", "v1", "x"], "serin model push: NAME: 'Small': accepted: 1 to 64 of a-z"),
        (["model", "push", "small", "..", "x"], "serin model push: VERSION: '..': accepted: 1 to 64 of A-Z"),
        (["env", "extra"], "serin env: 'extra': accepted: no further argument"),
        (
            ["key", "create", "--role", "boss"],
            "serin key create: --role: 'boss': accepted: app, viewer, operator, admin",
        ),
        (["audit", "verify", "--expect", "foo"], "serin audit verify: --expect: 'foo': accepted: NUMBER:DIGEST, the"),
        (["chat", "--temperature", "nan"], "serin chat: --temperature: 'nan': accepted: a number from 0 to 2"),
    ],
)
def test_a_bad_flag_is_one_line(arguments, line, capsys):
    """Nothing on standard output, one line on standard error, exit code 2."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


WITH_ACTIONS = ("key", "tenant", "audit", "config", "certs", "model", "rollout", "experiment")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_takes_a_state_directory(command, capsys):
    """`--help` works for each command, and the overview lists it."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: serin {command}" in text
    if command not in (
        "key",
        "tenant",
        "audit",
        "config",
        "cascade",
        "certs",
        "model",
        "rollout",
        "experiment",
    ):  # there each action takes it
        assert "--state DIR" in text
    assert main([]) == 0
    assert f"  {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["env"], ["status"], ["down"], ["chat", "hello"], ["logs"], ["key", "list"], ["usage"], ["explain", "r"]],
)
def test_without_a_mesh_a_command_says_how_to_start_one(arguments, tmp_path, capsys):
    """Commands that need a mesh name the directory and `serin up`, with exit code 1."""
    assert main([*arguments, "--state", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert str(tmp_path) in err
    assert "serin up" in err
    assert err.count("\n") == 1


def test_version_names_every_part(capsys):
    """`serin version` and `serin --version` print a line for each distribution."""
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    for part in ("serin-cli", "serin-gateway", "serin-worker", "torch", "grpcio"):
        assert f"\n{part} " in "\n" + out


def test_commands_in_a_refusal_mean_the_same_directory(tmp_path, capsys, monkeypatch):
    """Typed as they stand they are about the mesh that was asked for."""
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "a mesh"
    for arguments in (["status"], ["logs"], ["key", "list"], ["explain", "req-1"]):
        assert main([*arguments, "--state", str(there)]) == 1
        assert f"start one with `serin up --state '{there}'`" in capsys.readouterr().err.replace(
            "a mesh with", "one with"
        )
        assert main(arguments) == 1
        assert "`serin up`" in capsys.readouterr().err


def test_no_state_directory_is_meant_by_nothing(capsys):
    """As `--state "$UNSET"` says it: refused, where it would mean the current directory."""
    assert main(["status", "--state", ""]) == 2
    assert "--state: '': accepted: a directory" in capsys.readouterr().err
