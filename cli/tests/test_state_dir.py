"""The state directory: private, held by one mesh at a time, with sockets that fit into an address."""

import os
import shlex
import stat

import pytest
from serin_cli.errors import NoMesh, StartRefused, UsageProblem
from serin_cli.record import MeshRecord, read_record
from serin_cli.state_dir import LOCK_VARIABLE, SOCKET_PATH_LIMIT, StateDir


def test_secrets_are_private_and_stay(state):
    """Only the owner can enter the directory or read the secret, and preparing again keeps the secret."""
    secret = state.mesh_secret.read_text()
    assert len(secret) >= 32
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.mesh_secret.stat().st_mode) == 0o600
    state.prepare()
    assert state.mesh_secret.read_text() == secret


def test_a_second_mesh_is_refused(state):
    """The second lock on a directory is refused at once, naming the owner and what to do."""
    lock = state.lock()
    try:
        with pytest.raises(StartRefused, match=rf"already runs on .* \(process {os.getpid()}\).*serin down.*--state"):
            state.lock()
    finally:
        os.close(lock)
    os.close(state.lock())


def test_a_command_means_the_directory(state, monkeypatch, tmp_path):
    """What is shown can be typed as it is: with ``--state`` unless this folder or SERIN_STATE means it anyway."""
    assert shlex.split(state.command("serin logs -f")) == ["serin", "logs", "-f", "--state", str(state.root)]
    odd = StateDir(tmp_path / "a 'b'")
    assert shlex.split(odd.command("serin down"))[-1] == str(odd.root)
    monkeypatch.setenv("SERIN_STATE", str(state.root))
    assert state.command("serin down") == "serin down"
    monkeypatch.delenv("SERIN_STATE")
    monkeypatch.chdir(tmp_path)
    assert StateDir(tmp_path / ".serin").command("serin down") == "serin down"


def test_a_file_in_the_way_is_named(tmp_path):
    """A state path that is a file is refused with the path and what is accepted."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageProblem, match=r"--state: .*file.*: accepted: a directory"):
        StateDir(tmp_path / "file").prepare()


def test_a_directory_of_others_is_left_alone(tmp_path):
    """What holds other files is refused, and keeps its mode; one where only a registry was made is ours."""
    (tmp_path / "somebodys.txt").write_text("")
    tmp_path.chmod(0o755)
    with pytest.raises(UsageProblem, match=r"--state: .*: accepted: a directory of a mesh, an empty or a new one"):
        StateDir(tmp_path).prepare()
    assert (stat.S_IMODE(tmp_path.stat().st_mode), [*tmp_path.iterdir()]) == (0o755, [tmp_path / "somebodys.txt"])
    (tmp_path / "models").mkdir()
    StateDir(tmp_path).prepare()
    cut_off = StateDir(tmp_path / "begun")
    cut_off.logs.mkdir(parents=True)  # it was killed before it made more
    cut_off.prepare()


def test_a_directory_can_be_given_away_held(state, monkeypatch):
    """Whoever is given the lock is its owner; nobody else gets the directory in between."""
    given = state.lock()
    monkeypatch.setenv(LOCK_VARIABLE, str(given))
    held = state.lock()
    try:
        assert (held, LOCK_VARIABLE in os.environ) == (given, False)
        with pytest.raises(StartRefused, match=rf"process {os.getpid()}"):
            state.lock()
    finally:
        os.close(held)


def test_long_paths_get_a_short_socket(tmp_path):
    """A socket's path fits into an address also when the directory's own would not, and is removed again."""
    state = StateDir(tmp_path / ("x" * 120))
    state.prepare()
    path = state.socket("state-redis")
    assert len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
    assert path == StateDir(state.root).socket("state-redis")
    path.touch()
    state.remove_sockets("state-redis", "cache-redis")
    assert not path.parent.exists()


def test_a_record_is_only_read_while_the_mesh_lives(state):
    """What a killed mesh wrote down is not taken for a running one."""
    record = MeshRecord(1, "ready", "http://127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "unix:///x")
    record.write(state)
    with pytest.raises(NoMesh, match=r"serin up"):
        read_record(state)
    lock = state.lock()
    try:
        assert read_record(state) == record
        assert record.openai_base_url == "http://127.0.0.1:1/v1"
    finally:
        os.close(lock)
