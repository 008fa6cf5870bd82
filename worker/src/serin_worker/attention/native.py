"""Paged attention by a small C++ kernel: pages are read in place, prompts and decodes go through one path.

The kernel is compiled on first use with the compiler at hand and kept in the user's cache directory, named by source,
compiler and processor. Knows nothing about models or schedules.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import numpy
import torch

from serin_worker.attention.layer import LayerCache, LayerSpec, StepSequences
from serin_worker.model.processor import processor_flags

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TILE = 16


class KernelUnavailable(Exception):
    """No kernel can be built or loaded on this machine; the torch implementation serves instead."""


class _Layer(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("sinks", ctypes.c_void_p),
        ("num_kv_heads", ctypes.c_int32),
        ("group_size", ctypes.c_int32),
        ("key_dim", ctypes.c_int32),
        ("value_dim", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("starts", ctypes.c_void_p),
        ("contexts", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("num_sequences", ctypes.c_int32),
        ("table_stride", ctypes.c_int32),
        ("tiles_per_block", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
    )


class _Rows(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("token_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64))


class NativePagedAttention:
    """Pages as the kernel wants them: keys transposed, bf16 in pairs.

    Raises:
        KernelUnavailable: the block size is no multiple of 16, or the kernel cannot be built.
    """

    layout = "native-v1"

    def __init__(self, block_size: int, cache_folder: Path | None = None) -> None:
        if block_size % _TILE:
            raise KernelUnavailable(f"block size {block_size} is not a multiple of {_TILE}")
        self._tiles_per_block = block_size // _TILE
        self._kernel = _load(build(cache_folder or kernel_folder()))

    def allocate(self, spec: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
        """Pages for one layer; memory is taken from the system only as pages are written."""
        per = 2 if dtype == torch.bfloat16 else 1
        num_tiles = num_blocks * block_size // _TILE
        value_dim = -(-spec.value_dim // 16) * 16
        keys = _lazy_zeros((num_tiles, spec.num_kv_heads, spec.key_dim // per, _TILE, per), dtype)
        values = _lazy_zeros((num_tiles, spec.num_kv_heads, _TILE // per, value_dim, per), dtype)
        return LayerCache(spec, keys, values)

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """One call of the kernel."""
        spec = cache.spec
        out = query.new_empty((query.shape[0], spec.num_query_heads * spec.value_dim))
        if (padding := query.shape[0] - step.num_rows) > 0:
            out[-padding:] = 0
        sinks = cache.sinks
        layer = _Layer(
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            sinks.data_ptr() if sinks is not None else None,
            spec.num_kv_heads,
            spec.num_query_heads // spec.num_kv_heads,
            spec.key_dim,
            spec.value_dim,
            _DTYPES[query.dtype],
            spec.window,
            spec.scale,
            spec.softcap,
        )
        sequences = _Step(
            step.starts.data_ptr(),
            step.contexts.data_ptr(),
            step.tables.data_ptr(),
            step.contexts.shape[0],
            step.tables.stride(0),
            self._tiles_per_block,
            torch.get_num_threads(),
        )
        rows = [_rows(tensor) for tensor in (query, key, value)]
        self._kernel(layer, sequences, *(row for row, _ in rows), out.data_ptr())
        return out

    def copy_blocks(self, cache: LayerCache, sources: list[int], targets: list[int]) -> None:
        """Copy pages inside one layer."""
        for pages in (cache.keys, cache.values):
            blocks = pages.view(-1, self._tiles_per_block, *pages.shape[1:])
            blocks[targets] = blocks[sources]


def kernel_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/serin/kernels``."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "serin" / "kernels"


def build(folder: Path) -> Path:
    """Compile the kernel unless it is there already.

    Raises:
        KernelUnavailable: there is no compiler, or it failed.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        raise KernelUnavailable("no C++ compiler found (g++, clang++ or $CXX)")
    source = resources.files("serin_worker.attention").joinpath("paged.cpp").read_bytes()
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"{compiler} does not run: {error}") from error
    machine = " ".join([platform.machine(), *sorted(processor_flags())])
    name = hashlib.blake2b(source + version + " ".join([*_FLAGS, machine]).encode(), digest_size=12).hexdigest()
    library = folder / f"paged-{name}.so"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            text = Path(scratch) / "paged.cpp"
            text.write_bytes(source)
            made = Path(scratch) / "paged.so"
            subprocess.run(
                [compiler, *_FLAGS, str(text), "-o", str(made)], capture_output=True, check=True, timeout=300
            )
            made.replace(library)
    except subprocess.CalledProcessError as error:
        raise KernelUnavailable(f"{compiler} failed: {error.stderr.decode(errors='replace')[-500:]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"cannot build in {folder}: {error}") from error
    return library


def _load(library: Path) -> "ctypes._NamedFuncPointer":
    try:
        function = ctypes.CDLL(str(library)).serin_paged_attention
    except (OSError, AttributeError) as error:
        raise KernelUnavailable(f"{library} does not load: {error}") from error
    pointers = [ctypes.POINTER(kind) for kind in (_Layer, _Step, _Rows, _Rows, _Rows)]
    function.argtypes = [*pointers, ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


def _rows(tensor: torch.Tensor) -> tuple[_Rows, torch.Tensor]:
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    return _Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)), tensor


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    size = 4 if dtype == torch.float32 else 2
    return torch.from_numpy(numpy.zeros(shape, dtype=f"int{size * 8}")).view(dtype)
