"""The compiled kernels: built on first use with the compiler at hand, kept in the user's cache folder.

Named by sources and processor, by compiler, and by their own bytes: a change of any builds anew, and what is damaged on
the disk is not loaded, since a mapped file that is too short ends the process without a word. Of processes that need
them at the same time one builds and the others wait. Knows nothing about what kernels do.
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
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import torch

from serin_worker.model.processor import processor_flags

_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fopenmp-simd", "-pthread", "-fPIC", "-Wno-psabi")
_HEADERS = ("vector.h", "element.h", "tiles.h", "pool.h", "kernels.h")
_UNITS = ("paged.cpp", "draw.cpp", "rows.cpp", "linear.cpp", "layer.cpp")

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""What kernels call types of numbers (`Dtype` in vector.h)."""


_threads = {"count": 0}


class KernelUnavailable(Exception):
    """No kernel can be built or loaded on this machine; torch serves instead."""


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library, built if need be.

    Raises:
        KernelUnavailable: there is no compiler, it failed, or what it built does not load.
    """
    library = build(kernel_folder())
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelUnavailable(f"{library} does not load: {error}") from error


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
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "serin" / "kernels"


def is_built(folder: Path) -> bool:
    """Whether :func:`build` would find them there, and compile nothing."""
    stem = f"kernels-{_fingerprint(_sources())}"
    with contextlib.suppress(KernelUnavailable):
        stem = _stem_of(stem, _compiler()[1])
    return _newest(folder, stem) is not None


def build(folder: Path) -> Path:
    """Compile the kernels unless they are there already, whole.

    Where no compiler runs, or it fails, those that another one made of the same sources for this processor will do.

    Raises:
        KernelUnavailable: there is no compiler, or it failed, and nothing was built before.
    """
    sources = _sources()
    stem = f"kernels-{_fingerprint(sources)}"
    try:
        compiler, version = _compiler()
        return _newest(folder, _stem_of(stem, version)) or _build(compiler, sources, folder, _stem_of(stem, version))
    except KernelUnavailable:
        library = _newest(folder, stem)
        if library is None:
            raise
        logging.getLogger(__name__).warning(
            "no compiler runs here, or it failed: kernels serve that another one built before"
        )
        return library


def _stem_of(fingerprint: str, version: bytes) -> str:
    return f"{fingerprint}-{hashlib.blake2b(version, digest_size=6).hexdigest()}"


def _build(compiler: str, sources: dict[str, bytes], folder: Path, stem: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            return _newest(folder, stem) or _built(compiler, sources, folder, stem)
    except subprocess.CalledProcessError as error:
        raise KernelUnavailable(f"{compiler} failed: {error.stderr.decode(errors='replace')[-500:]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"cannot build in {folder}: {error}") from error


def _compiler() -> tuple[str, bytes]:
    """The compiler at hand, and what it says of its version."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        raise KernelUnavailable("no C++ compiler found (g++, clang++ or $CXX)")
    try:
        return compiler, subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"{compiler} does not run: {error}") from error


def _newest(folder: Path, stem: str) -> Path | None:
    """The latest library whose name begins so and whose bytes are those that were built."""
    found = []
    for library in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(OSError):
            if library.stem.rpartition("-")[2] == _digest(library):
                found.append((library.stat().st_mtime, library))
    return max(found)[1] if found else None


def _built(compiler: str, sources: dict[str, bytes], folder: Path, stem: str) -> Path:
    """A new library in place of damaged ones. Nobody else builds there: other scratch folders are of killed builds."""
    for left in folder.glob("tmp*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = _compile(compiler, sources, Path(scratch))
        library = folder / f"{stem}-{_digest(made)}.so"
        for damaged in folder.glob(f"{stem}-*.so"):
            damaged.unlink()
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

    def run(*arguments: str) -> None:
        subprocess.run([compiler, *_FLAGS, *arguments], capture_output=True, check=True, timeout=300)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as side_by_side:
        list(side_by_side.map(lambda unit: run("-c", str(unit), "-o", str(unit.with_suffix(".o"))), units))
    made = scratch / "kernels.so"
    run("-shared", *(str(unit.with_suffix(".o")) for unit in units), "-o", str(made))
    return made


def _sources() -> dict[str, bytes]:
    here = resources.files("serin_worker.native")
    return {name: here.joinpath(name).read_bytes() for name in (*_HEADERS, *_UNITS)}


def _fingerprint(sources: dict[str, bytes]) -> str:
    machine = " ".join([platform.machine(), *_FLAGS, *sorted(processor_flags())])
    return hashlib.blake2b(b"\0".join([machine.encode(), *sources.values()]), digest_size=12).hexdigest()


def _digest(library: Path) -> str:
    return hashlib.blake2b(library.read_bytes(), digest_size=12).hexdigest()
