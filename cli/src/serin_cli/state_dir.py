"""The state directory of a local mesh: where its secrets, keys, data, logs and record are.

Knows paths and files, nothing about processes or services. One mesh at a time holds the directory, by a file lock
that ends with the last process that inherited it.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shlex
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from serin_cli.arguments import state_path
from serin_cli.errors import NoMesh, StartRefused, UsageProblem

LOCK_VARIABLE = "SERIN_STATE_LOCK"
"""In the environment of a process that was given the directory: the file descriptor of its lock."""
SECRET_BYTE_COUNT = 32
SOCKET_PATH_LIMIT = 100  # bytes; a socket's address holds 107 on Linux and 103 on macOS


class StateDir:
    """The files of one local mesh. Nothing is made before :meth:`prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.data = self.root / "data"
        self.models = self.root / "models"  # the model registry
        self.additions = self.root / "added.json"  # versions beside the declared ones
        self.record = self.root / "mesh.json"
        self.mesh_secret = self.root / "mesh.secret"
        self.default_key = self.root / "default.key"
        self.config = self.root / "initial.yaml"  # what the control plane starts from if it remembers nothing
        self._lock = self.root / "lock"

    def prepare(self) -> None:
        """Make the directory, readable by its owner alone, with its mesh secret.

        Raises:
            UsageProblem: the directory cannot be made, or holds other things than ours.
        """
        try:
            if self.root.exists() and not self._is_ours():
                raise UsageProblem.setting("--state", str(self.root), "a directory of a mesh, an empty or a new one")
            for folder in (self.root, self.logs, self.data):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            if not self.mesh_secret.exists():
                write_private(self.mesh_secret, secrets.token_hex(SECRET_BYTE_COUNT))
        except OSError as error:
            accepted = f"a directory that can be written ({error.strerror})"
            raise UsageProblem.setting("--state", str(self.root), accepted) from error

    def _is_ours(self) -> bool:
        """Whether it holds something that only a mesh or its registry makes, or no more than what is made first."""
        own = {path.name for path in (self.mesh_secret, self._lock, self.record, self.models, self.additions)}
        found = {path.name for path in self.root.iterdir()}
        return found <= {self.logs.name, self.data.name} or not found.isdisjoint(own)

    def command(self, words: str) -> str:
        """A command of ours as a person types it here to mean this directory: says ``--state`` where it would not."""
        is_meant = self.root == state_path(None).absolute()
        return words if is_meant else f"{words} --state {shlex.quote(str(self.root))}"

    def lock(self, wait_s: float = 5.0) -> int:
        """Hold the directory for one mesh; returns the lock's file descriptor.

        A mesh that was killed may need a moment until its last process is gone, so a lock whose owner is dead is
        waited for.

        A process that was given the directory by the one that started it goes on holding it.

        Raises:
            StartRefused: another mesh runs here.
        """
        given = os.environ.pop(LOCK_VARIABLE, "")  # it is nobody's else: what this process starts is not given it
        descriptor = int(given) if given else os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + wait_s
        while not _take(descriptor):
            owner = int(os.read(descriptor, 32) or b"0")
            os.lseek(descriptor, 0, os.SEEK_SET)
            if _alive(owner) or time.monotonic() > deadline:
                os.close(descriptor)
                raise StartRefused(
                    f"another mesh already runs on {self.root} (process {owner}); "
                    f"stop it with `{self.command('serin down')}`, or give this one its own directory with --state DIR"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def is_held(self) -> bool:
        """True while a mesh, or what is left of it, holds the directory."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _take(descriptor)
        finally:
            os.close(descriptor)

    def read_default_key(self) -> str:
        """The API key that was made for this directory.

        Raises:
            NoMesh: a mesh has not come so far yet.
        """
        try:
            return self.default_key.read_text(encoding="utf-8").strip()
        except OSError as error:
            look = self.command("serin status")
            raise NoMesh(f"no key is made on {self.root} yet; wait until the mesh is ready (`{look}`)") from error

    def socket(self, name: str) -> Path:
        """Where a socket goes: in the directory, or under the system's temporary one if that path is too long."""
        path = self.root / f"{name}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.blake2b(os.fsencode(self.root), digest_size=8).hexdigest()
        folder = Path(tempfile.gettempdir()) / f"serin-{os.getuid()}-{digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise StartRefused(f"{folder} is not private to this user; remove it, or set TMPDIR to a private directory")
        return folder / f"{name}.sock"

    def remove_sockets(self, *names: str) -> None:
        """Remove the sockets of a mesh that has stopped, and the folder they were in if it was not the directory."""
        for name in names:
            path = self.socket(name)
            path.unlink(missing_ok=True)
            if path.parent != self.root:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def await_condition(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.05) -> bool:
    """Wait for something outside this process; returns whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
