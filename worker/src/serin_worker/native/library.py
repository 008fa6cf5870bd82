"""The compiled kernels: built on first use with the compiler at hand, kept in the user's cache folder.

Named by sources and processor, by compiler, and by their own bytes: a change of any builds anew, and what is damaged on
the disk is not loaded, since a mapped file that is too short ends the process without a word. Of processes that need
them at the same time one builds and the others wait. Where the folder cannot be used, or others may write to it, a
process builds for itself. Knows nothing about what kernels do.
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import NamedTuple, Self

import torch

from serin_worker.cache_folder import cache_folder
from serin_worker.model.processor import processor_flags

_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fopenmp-simd", "-pthread", "-fPIC", "-Wno-psabi")
_HEADERS = ("vector.h", "element.h", "tiles.h", "pool.h", "kernels.h")
_UNITS = ("paged.cpp", "draw.cpp", "rows.cpp", "linear.cpp", "layer.cpp")
_TIMEOUT_S = 300

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""What kernels call types of numbers (`Dtype` in vector.h)."""


_threads = {"count": 0}
_groups: "set[_ProcessGroup]" = set()


class KernelUnavailable(Exception):
    """No kernel can be built or loaded on this machine; torch serves instead."""


class FolderUnusable(KernelUnavailable):
    """No kernel can be kept in a folder; in another one it can."""


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library, built if need be: where its folder cannot be used, in one that is this process's alone.

    Raises:
        KernelUnavailable: there is no compiler, it failed, or what it built does not load.
    """
    folder = kernel_folder()
    try:
        return _loaded(build(folder))
    except FolderUnusable as error:
        unusable = error
    try:
        with tempfile.TemporaryDirectory(prefix="serin-kernels-", ignore_cleanup_errors=True) as private:
            library = _loaded(build(Path(private)))  # once it is mapped its file may go
    except (KernelUnavailable, OSError) as error:
        raise KernelUnavailable(f"{unusable}; in a temporary folder: {error}") from error
    logging.getLogger(__name__).warning(
        "kernels were compiled for this process alone, as at each start until they can be kept (half a minute): %s; "
        "make %s a folder that this user (id %d) can read and write, and nobody else can write, or set XDG_CACHE_HOME",
        unusable,
        folder,
        os.geteuid(),
    )
    return library


def set_num_threads(count: int) -> None:
    """How many threads work on a kernel from now on, the caller's included."""
    _threads["count"] = count


def num_threads() -> int:
    """The same; unless it was said, as many as torch has."""
    return _threads["count"] or torch.get_num_threads()


@functools.cache
def has_kernels() -> bool:
    """Whether they can be built and loaded here."""
    try:
        kernels()
    except KernelUnavailable:
        return False
    return True


def kernel_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/serin/kernels``."""
    return cache_folder("kernels")


def is_built(folder: Path) -> bool:
    """Whether :func:`build` would find them there, and compile nothing."""
    compiler = None
    with contextlib.suppress(KernelUnavailable):
        compiler = _compiler()
    return _found(folder, _fingerprint(_sources()), compiler) is not None


def build(folder: Path) -> Path:
    """Compile the kernels unless they are there already, whole.

    Where no compiler runs, or it fails, or the folder cannot be written, those that another one made of the same
    sources for this processor will do.

    Raises:
        KernelUnavailable: there is no compiler, or it failed, and nothing was built before.
        FolderUnusable: it cannot be looked into, others may write to it, or what a compiler makes cannot be kept there.
    """
    sources = _sources()
    fingerprint = _fingerprint(sources)
    _check(folder)
    try:
        compiler = _compiler()
        return _found(folder, fingerprint, compiler) or _build(compiler, sources, folder, fingerprint)
    except KernelUnavailable as error:
        library = _found(folder, fingerprint, None)  # a compiler that fails is as good as none
        if library is None:
            raise
        logging.getLogger(__name__).warning("kernels serve that another compiler built before: %s", error)
        return library


def stop_building() -> None:
    """End the builds of this process that are going on in other threads: they fail there."""
    for group in list(_groups):
        group.stop()


class _Compiler(NamedTuple):
    command: str
    version: bytes

    def stem(self, fingerprint: str) -> str:
        """How the names begin of what it makes of sources."""
        return f"kernels-{fingerprint}-{hashlib.blake2b(self.version, digest_size=6).hexdigest()}"


def _check(folder: Path) -> None:
    try:
        if not _is_ours_alone(folder):
            raise FolderUnusable(f"others than this user may write to {folder}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise FolderUnusable(f"cannot look into {folder}: {error}") from error


def _loaded(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelUnavailable(f"{library} does not load: {error}") from error


def _found(folder: Path, fingerprint: str, compiler: _Compiler | None) -> Path | None:
    """What serves as it is: the compiler's own; of any compiler, where there is none that could build there."""
    own = _newest(folder, compiler.stem(fingerprint)) if compiler else None
    if own or (compiler and os.access(folder, os.W_OK)):
        return own
    return _newest(folder, f"kernels-{fingerprint}")


def _build(compiler: _Compiler, sources: dict[str, bytes], folder: Path, fingerprint: str) -> Path:
    stem = compiler.stem(fingerprint)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check(folder)
        with _alone_in(folder):
            return _newest(folder, stem) or _built(compiler.command, sources, folder, stem)
    except subprocess.CalledProcessError as error:
        raise KernelUnavailable(f"{compiler.command} failed: {error.stderr.decode(errors='replace')[-500:]}") from error
    except subprocess.SubprocessError as error:
        raise KernelUnavailable(f"{compiler.command} failed: {error}") from error
    except OSError as error:
        raise FolderUnusable(f"cannot build in {folder}: {error}") from error


def _compiler() -> _Compiler:
    """The compiler at hand, and what it says of its version."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        raise KernelUnavailable("no C++ compiler found (g++, clang++ or $CXX)")
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
        return _Compiler(compiler, said)
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"{compiler} does not run: {error}") from error


def _newest(folder: Path, stem: str) -> Path | None:
    """The latest library whose name begins so, whose bytes are those that were built, and that nobody else may write.

    None where the folder may not be looked into.
    """
    found = []
    with contextlib.suppress(OSError):
        for library in folder.glob(f"{stem}-*.so") if _is_ours_alone(folder) else ():
            with contextlib.suppress(OSError):
                if _is_ours_alone(library) and library.stem.rpartition("-")[2] == _digest(library):
                    found.append((library.stat().st_mtime, library))
    return max(found)[1] if found else None


def _is_ours_alone(path: Path) -> bool:
    """Whether this user and root alone may write to it: whoever else may could run code of theirs in this process."""
    status = path.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _built(compiler: str, sources: dict[str, bytes], folder: Path, stem: str) -> Path:
    """A new library in place of damaged ones. Nobody else builds there: other scratch folders are of killed builds."""
    for left in folder.glob("tmp*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = _compile(compiler, sources, Path(scratch))
        library = folder / f"{stem}-{_digest(made)}.so"
        for damaged in folder.glob(f"{stem}-*.so"):
            damaged.unlink()
        made.chmod(0o755)
        return made.replace(library)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process builds there; one that dies builds no longer."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _compile(compiler: str, sources: dict[str, bytes], scratch: Path) -> Path:
    for name, text in sources.items():
        (scratch / name).write_bytes(text)
    units = [scratch / name for name in sources if name.endswith(".cpp")]

    made = scratch / "kernels.so"
    with _ProcessGroup() as group:

        def run(*arguments: str) -> None:
            group.run([compiler, *_FLAGS, *arguments])

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as side_by_side:
            list(side_by_side.map(lambda unit: run("-c", str(unit), "-o", str(unit.with_suffix(".o"))), units))
        run("-shared", *(str(unit.with_suffix(".o")) for unit in units), "-o", str(made))
    return made


class _ProcessGroup:
    """Processes that are killed at the end of a block, and when this process ends or is killed.

    A compiler starts others, which a signal to it, or upon its parent's death, does not reach. The first process of the
    group waits for the end of a pipe whose other end nobody has but this process, and then kills all of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_stopped = False

    def __enter__(self) -> Self:
        command = ["sh", "-c", "read -r _; kill -KILL 0"]
        self._first = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
        _groups.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _groups.discard(self)
        self.stop()
        with self._first:  # its pipe is closed, and its end awaited
            pass

    def run(self, command: Sequence[str]) -> None:
        """Wait for one more process of the group.

        Raises:
            KernelUnavailable: the group was stopped before.
            subprocess.SubprocessError: it failed, or takes longer than five minutes.
        """
        with self._lock:  # what begins while the others are killed would be left alone
            if self._is_stopped:
                raise KernelUnavailable("the build was stopped")
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, process_group=self._first.pid)
        with process:
            try:
                out, errors = process.communicate(timeout=_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, out, errors)

    def stop(self) -> None:
        """Kill all that run; once, since the number of a group that has ended may be another one's."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._first.pid, signal.SIGKILL)


def _sources() -> dict[str, bytes]:
    here = resources.files("serin_worker.native")
    return {name: here.joinpath(name).read_bytes() for name in (*_HEADERS, *_UNITS)}


def _fingerprint(sources: dict[str, bytes]) -> str:
    machine = " ".join([platform.machine(), *_FLAGS, *sorted(processor_flags())])
    return hashlib.blake2b(b"\0".join([machine.encode(), *sources.values()]), digest_size=12).hexdigest()


def _digest(library: Path) -> str:
    return hashlib.blake2b(library.read_bytes(), digest_size=12).hexdigest()
