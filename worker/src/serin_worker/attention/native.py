"""Paged attention by a small C++ kernel: pages are read in place, prompts and decodes go through one path.

Knows nothing about models or schedules.
"""

import ctypes

import torch

from serin_worker.attention.layer import LayerCache, LayerSpec, StepSequences
from serin_worker.native.library import DTYPES, KernelUnavailable, kernels, num_threads
from serin_worker.native.memory_advice import ask_for_huge_pages
from serin_worker.native.outcome import answering

_TILE = 16


class LayerPages(ctypes.Structure):
    """One layer's pages and its arithmetic, as the kernel takes them."""

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


class StepRows(ctypes.Structure):
    """Whose rows a step has, as the kernel takes it."""

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

    def __init__(self, block_size: int) -> None:
        if block_size % _TILE:
            raise KernelUnavailable(f"block size {block_size} is not a multiple of {_TILE}")
        self.block_size = block_size
        self._tiles_per_block = block_size // _TILE
        self._kernel = _load()

    def allocate(self, spec: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
        """Pages for one layer, in memory from now on: filled as they are first used, they would look like a leak."""
        per = 2 if dtype == torch.bfloat16 else 1
        num_tiles = num_blocks * block_size // _TILE
        value_dim = -(-spec.value_dim // 16) * 16
        keys = torch.empty((num_tiles, spec.num_kv_heads, spec.key_dim // per, _TILE, per), dtype=dtype)
        values = torch.empty((num_tiles, spec.num_kv_heads, _TILE // per, value_dim, per), dtype=dtype)
        for tensor in (keys, values):
            ask_for_huge_pages(tensor)
            tensor.zero_()
        return LayerCache(spec, keys, values)

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """One call of the kernel."""
        spec = cache.spec
        out = query.new_empty((query.shape[0], spec.num_query_heads * spec.value_dim))
        if (padding := query.shape[0] - step.num_rows) > 0:
            out[-padding:] = 0
        rows = [_rows(tensor) for tensor in (query, key, value)]
        self._kernel(pages_of(cache), self.step_rows(step), *(row for row, _ in rows), out.data_ptr())
        return out

    def step_rows(self, step: StepSequences) -> StepRows:
        """A step as the kernel takes it; its tensors have to stay."""
        return StepRows(
            step.starts.data_ptr(),
            step.contexts.data_ptr(),
            step.tables.data_ptr(),
            step.contexts.shape[0],
            step.tables.stride(0),
            self._tiles_per_block,
            num_threads(),
        )

    def copy_blocks(self, cache: LayerCache, sources: list[int], targets: list[int]) -> None:
        """Copy pages inside one layer."""
        for pages in (cache.keys, cache.values):
            blocks = pages.view(-1, self._tiles_per_block, *pages.shape[1:])
            blocks[targets] = blocks[sources]


def pages_of(cache: LayerCache) -> LayerPages:
    """A layer's pages as the kernel takes them; its tensors have to stay."""
    spec = cache.spec
    return LayerPages(
        cache.keys.data_ptr(),
        cache.values.data_ptr(),
        None if cache.sinks is None else cache.sinks.data_ptr(),
        spec.num_kv_heads,
        spec.num_query_heads // spec.num_kv_heads,
        spec.key_dim,
        spec.value_dim,
        DTYPES[cache.keys.dtype],
        spec.window,
        spec.scale,
        spec.softcap,
    )


def _load() -> "ctypes._NamedFuncPointer":
    function = answering(kernels().serin_paged_attention)
    pointers = [ctypes.POINTER(kind) for kind in (LayerPages, StepRows, _Rows, _Rows, _Rows)]
    function.argtypes = [*pointers, ctypes.c_void_p]
    return function


def _rows(tensor: torch.Tensor) -> tuple[_Rows, torch.Tensor]:
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    return _Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)), tensor
