"""Paged attention on GPUs by kernels of ours in Triton: prompts as FlashAttention-2, decodes as flash-decoding.

Nothing that lies on the device is looked at from the host, so that a CUDA graph can hold a step. Knows nothing about
models or schedules.
"""

import math
from typing import Any

import torch

from serin_worker.attention import triton_kernels
from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.layer import LayerCache, LayerSpec, StepSequences
from serin_worker.attention.tiling import Tile, Tiling, padded, tiling_of
from serin_worker.attention.triton_softmax import split_start
from serin_worker.native.triton_runtime import EXACT
from serin_worker.rounding import power_of_two

_NUM_PROGRAMS = 4096
"""Of a step's decodes, about: for each of 132 processors what it can hold several times over, so that none is idle."""
_LEAST_PER_CONTEXT = 4
"""A long context among many short ones is not left to one program."""
_WRITE = 2048
"""Numbers that a program writes: two loads of 16 bytes for each of 128 threads; 256 rows of 8 heads fill the device."""
_WARP = 1024
"""Numbers that one warp merges: 32 for each thread."""


class TritonPagedAttention:
    """Pages are [blocks, heads, block size, dim]: what one program reads of a block lies together.

    Args:
        device: where pages are. A CPU is for tests, by Triton's interpreter (``TRITON_INTERPRET=1``).
        invariant: a row's result is bit for bit the same in every batch and chunking, be it a prompt's or a decode's.
            All is summed up in an order that positions alone decide, by products of one shape for prompts and decodes.
            Seen in the interpreter, and in the layouts that the compiler gives these products; whether a device keeps
            it is for ``Verification`` to see when a model starts. False: prompts are summed up without splits, in
            larger tiles, and decodes in smaller ones. A decoded row then differs by rounding from the same row in a
            prompt; prompts' rows still keep their bits in every batch and chunk of two rows and more, decodes' theirs.
        tiling: how layers are cut up, instead of what fits them.
    """

    layout = "triton-v1"

    def __init__(self, device: torch.device, *, invariant: bool = True, tiling: Tiling | None = None) -> None:
        self._device = device
        self._invariant = invariant
        self._tiling = tiling

    def allocate(self, spec: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
        """Pages for one layer."""
        shape = (num_blocks, spec.num_kv_heads, block_size)
        return LayerCache(
            spec,
            torch.zeros((*shape, spec.key_dim), dtype=dtype, device=self._device),
            torch.zeros((*shape, spec.value_dim), dtype=dtype, device=self._device),
        )

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Bring the step to the device, if no layer has, and attend there."""
        if step.on_device is None:
            step.on_device = DeviceStep.of(step, query.shape[0], self._device)
        return self.attend_device(cache, step.on_device, query, key, value)

    def attend_device(
        self, cache: LayerCache, step: DeviceStep, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """What :meth:`attend` does, of a step that is on the device; can be captured in a CUDA graph.

        Launches depend on shapes and ``step.max_new`` alone. Padding rows give zeros.

        Args:
            cache: the layer's pages.
            step: whose rows they are.
            query: [rows, heads, dim].
            key: [rows, kv heads, dim].
            value: [rows, kv heads, dim].

        Returns:
            [rows, heads * dim].
        """
        query, key, value = (rows if rows.stride(-1) == 1 else rows.contiguous() for rows in (query, key, value))
        spec, num_sequences = cache.spec, len(step.contexts)
        launch = _Launch(cache, step, query, self._tiling or tiling_of(spec, query.dtype, invariant=self._invariant))
        shape = (query.shape[0], spec.num_query_heads * spec.value_dim)
        # In a step of decodes every row is somebody's only one or padding: the last kernel writes result or zeros.
        out = query.new_empty(shape) if step.max_new == 1 else query.new_zeros(shape)
        launch.write(key, value)
        if step.max_new > 1:
            launch.attend_prompts(out)
        if step.max_new == 1 or num_sequences > 1:
            launch.attend_decodes(out)
        return out

    def copy_blocks(self, cache: LayerCache, sources: list[int], targets: list[int]) -> None:
        """Copy pages inside one layer."""
        for pages in (cache.keys, cache.values):
            pages[targets] = pages[sources]


class _Launch:
    """The kernels' arguments for one layer and step, and their grids."""

    def __init__(self, cache: LayerCache, step: DeviceStep, query: torch.Tensor, tiling: Tiling) -> None:
        self._cache, self._step, self._query, self._tiling = cache, step, query, tiling
        spec = cache.spec
        self._num_sequences = len(step.contexts)
        self._block_size = cache.keys.shape[2]
        self._block_k, self._block_v = padded(spec.key_dim), padded(spec.value_dim)

    def write(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keys and values into their pages."""
        cache, step, spec = self._cache, self._step, self._cache.spec
        num_each = max(1, _WRITE // max(self._block_k, self._block_v))
        triton_kernels.write_rows[(-(-step.num_padded * spec.num_kv_heads // num_each),)](
            cache.keys,
            cache.values,
            key,
            value,
            step.row_sequences,
            step.row_positions,
            step.tables,
            step.num_padded,
            step.tables.stride(0),
            key.stride(0),
            key.stride(1),
            value.stride(0),
            value.stride(1),
            NUM_KV_HEADS=spec.num_kv_heads,
            KEY_DIM=spec.key_dim,
            VALUE_DIM=spec.value_dim,
            BLOCK_SIZE=self._block_size,
            BLOCK_M=num_each,
            BLOCK_K=self._block_k,
            BLOCK_V=self._block_v,
        )

    def attend_prompts(self, out: torch.Tensor) -> None:
        """Outputs of sequences with two new rows and more."""
        cache, step, tile = self._cache, self._step, self._tiling.prompts
        rows_each = tile.num_rows // self._group
        grid = (step.num_padded // rows_each + self._num_sequences, cache.spec.num_kv_heads)
        triton_kernels.attend_prompts[grid](
            out,
            self._query,
            cache.keys,
            cache.values,
            cache.sinks,
            step.starts,
            step.contexts,
            step.tables,
            self._num_sequences,
            step.tables.stride(0),
            self._query.stride(0),
            self._query.stride(1),
            self._scale,
            FIRST_SPLIT=self._tiling.first_split if self._tiling.splits_prompts else 0,
            **self._constants(tile),
        )

    def attend_decodes(self, out: torch.Tensor) -> None:
        """Outputs of sequences with one new row, by splits of their context, and zeros for padding."""
        cache, step, spec, tile = self._cache, self._step, self._cache.spec, self._tiling.decodes
        num_splits = count_splits(step.tables.shape[1] * self._block_size, self._tiling.first_split)
        num_pairs = self._num_sequences * spec.num_kv_heads
        num_each = min(num_splits, max(_LEAST_PER_CONTEXT, -(-_NUM_PROGRAMS // num_pairs)))
        partial = (self._num_sequences, spec.num_query_heads, num_splits)
        outputs = torch.empty((*partial, self._block_v), dtype=torch.float32, device=out.device)
        sums = torch.empty((*partial, 2), dtype=torch.float32, device=out.device)
        triton_kernels.attend_decodes[(self._num_sequences, spec.num_kv_heads, num_each)](
            outputs,
            sums,
            self._query,
            cache.keys,
            cache.values,
            step.starts,
            step.contexts,
            step.tables,
            step.tables.stride(0),
            num_splits,
            self._query.stride(0),
            self._query.stride(1),
            self._scale,
            FIRST_SPLIT=self._tiling.first_split,
            **self._constants(tile),
        )
        num_rows = step.num_padded if step.max_new == 1 else 0
        num_heads = power_of_two(self._group)
        triton_kernels.merge_decodes[(max(self._num_sequences, num_rows), spec.num_kv_heads)](
            out,
            outputs,
            sums,
            cache.sinks,
            step.starts,
            step.contexts,
            step.row_sequences,
            self._num_sequences,
            num_rows,
            num_splits,
            NUM_KV_HEADS=spec.num_kv_heads,
            GROUP=self._group,
            VALUE_DIM=spec.value_dim,
            WINDOW=spec.window,
            FIRST_SPLIT=self._tiling.first_split,
            BLOCK_N=tile.num_keys,
            BLOCK_H=num_heads,
            BLOCK_V=self._block_v,
            num_warps=1 if num_heads * self._block_v <= _WARP else 4,
            **EXACT,
        )

    @property
    def _group(self) -> int:
        return self._cache.spec.num_query_heads // self._cache.spec.num_kv_heads

    @property
    def _scale(self) -> float:
        """Makes scores exponents of two, or what a softcap's tanh takes."""
        spec = self._cache.spec
        return spec.scale / spec.softcap if spec.softcap else spec.scale * math.log2(math.e)

    def _constants(self, tile: Tile) -> dict[str, Any]:
        spec = self._cache.spec
        return {
            "NUM_KV_HEADS": spec.num_kv_heads,
            "GROUP": self._group,
            "KEY_DIM": spec.key_dim,
            "VALUE_DIM": spec.value_dim,
            "BLOCK_SIZE": self._block_size,
            "WINDOW": spec.window,
            "SOFTCAP": spec.softcap,
            "BLOCK_M": tile.num_rows,
            "BLOCK_N": tile.num_keys,
            "BLOCK_K": self._block_k,
            "BLOCK_V": self._block_v,
            "WIDEN": self._query.device.type == "cpu" and self._query.dtype is torch.bfloat16,
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
            **EXACT,
        }


def count_splits(num_keys: int, first_split: int) -> int:
    """Splits that a context of some keys has."""
    num_splits = 0
    while split_start.fn(num_splits, first_split) < num_keys:
        num_splits += 1
    return num_splits
