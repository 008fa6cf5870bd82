"""Paged attention in plain torch: runs on any device, and is what the compiled kernel is tested against.

Queries are tiled at absolute positions (a tile is 16 positions of one sequence) and keys are visited in chunks of 64,
so that every matrix product has the same shape and puts a row at the same place: a row's result does not depend on its
batch or on how its prompt was chunked. Computes in float32.
"""

import torch

from serin_worker.attention.layer import LayerCache, LayerSpec, StepSequences

_TILE = 16
_CHUNK = 64


class TorchPagedAttention:
    """Pages are [blocks, block size, heads, dim]."""

    layout = "torch-v1"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def allocate(self, spec: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
        """Pages for one layer."""
        shape = (num_blocks, block_size, spec.num_kv_heads)
        return LayerCache(
            spec,
            torch.zeros((*shape, spec.key_dim), dtype=dtype, device=self._device),
            torch.zeros((*shape, spec.value_dim), dtype=dtype, device=self._device),
        )

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Write, then read tile by tile with an online softmax over key chunks."""
        spec, device = cache.spec, query.device
        block_size = cache.keys.shape[1]
        tiling = _Tiling(step, device)
        tables = step.tables.to(device).long()
        slots = tables[tiling.row_sequence, tiling.row_position // block_size] * block_size
        slots += tiling.row_position % block_size
        num_rows = len(slots)
        cache.keys.view(-1, *key.shape[1:])[slots] = key[:num_rows]
        cache.values.view(-1, *value.shape[1:])[slots] = value[:num_rows]

        num_tiles, group = tiling.num_tiles, spec.num_query_heads // spec.num_kv_heads
        queries = torch.zeros((num_tiles * _TILE, spec.num_query_heads, spec.key_dim), device=device)
        queries[tiling.row_place] = query[:num_rows].float()
        queries = queries.view(num_tiles, _TILE, spec.num_kv_heads, group, spec.key_dim)
        queries = queries.permute(0, 2, 3, 1, 4).reshape(num_tiles * spec.num_kv_heads, group * _TILE, spec.key_dim)
        outputs = _attend_tiles(queries, cache, tables[tiling.tile_sequence], tiling)
        outputs = outputs.view(num_tiles, spec.num_kv_heads, group, _TILE, spec.value_dim).permute(0, 3, 1, 2, 4)
        outputs = outputs.reshape(num_tiles * _TILE, spec.num_query_heads * spec.value_dim)
        result = query.new_zeros((query.shape[0], spec.num_query_heads * spec.value_dim))
        result[:num_rows] = outputs[tiling.row_place].to(query.dtype)
        return result

    def copy_blocks(self, cache: LayerCache, sources: list[int], targets: list[int]) -> None:
        """Copy pages inside one layer."""
        for pages in (cache.keys, cache.values):
            pages[targets] = pages[sources]


class _Tiling:
    """Where each row of a step goes: tiles are aligned to multiples of 16 positions of their sequence."""

    def __init__(self, step: StepSequences, device: torch.device) -> None:
        starts, contexts = step.starts.long(), step.contexts.long()
        num_new = starts[1:] - starts[:-1]
        first = contexts - num_new
        sequences = torch.arange(len(contexts))
        row_sequence = torch.repeat_interleave(sequences, num_new)
        row_position = torch.arange(int(starts[-1])) - starts[row_sequence] + first[row_sequence]
        first_tile, last_tile = first // _TILE, (contexts - 1) // _TILE
        tiles_of = torch.where(num_new > 0, last_tile - first_tile + 1, 0)
        tile_start = torch.cumsum(tiles_of, 0) - tiles_of
        self.tile_sequence = torch.repeat_interleave(sequences, tiles_of).to(device)
        self.tile_context = contexts.to(device)[self.tile_sequence]
        self.tile_first = first.to(device)[self.tile_sequence]
        self.num_tiles = len(self.tile_sequence)
        tile_index = torch.arange(self.num_tiles).to(device)
        on_device = (tile_start.to(device), first_tile.to(device))
        self.tile_position = (tile_index - on_device[0][self.tile_sequence] + on_device[1][self.tile_sequence]) * _TILE
        row_tile = tile_start[row_sequence] + row_position // _TILE - first_tile[row_sequence]
        self.row_place = (row_tile * _TILE + row_position % _TILE).to(device)
        self.row_sequence, self.row_position = row_sequence.to(device), row_position.to(device)
        self.max_context = int(contexts.max()) if len(contexts) else 0


def _attend_tiles(queries: torch.Tensor, cache: LayerCache, tables: torch.Tensor, tiling: _Tiling) -> torch.Tensor:
    spec, block_size, device = cache.spec, cache.keys.shape[1], queries.device
    num_batched, num_rows, _ = queries.shape
    group = num_rows // _TILE
    position = (tiling.tile_position[:, None] + torch.arange(_TILE, device=device)).repeat(1, group)
    position = position.repeat_interleave(spec.num_kv_heads, 0)[:, :, None]
    contexts = tiling.tile_context.repeat_interleave(spec.num_kv_heads)[:, None]
    firsts = tiling.tile_first.repeat_interleave(spec.num_kv_heads)[:, None]
    maxima = torch.full((num_batched, num_rows, 1), -torch.inf, device=device)
    sums = torch.zeros((num_batched, num_rows, 1), device=device)
    outputs = torch.zeros((num_batched, num_rows, spec.value_dim), device=device)
    for start in range(0, tiling.max_context, _CHUNK):
        at = torch.arange(start, start + _CHUNK, device=device)
        blocks = tables[:, (at // block_size).clamp(max=tables.shape[1] - 1)]
        keys = _gather(cache.keys, blocks, at % block_size)
        values = _gather(cache.values, blocks, at % block_size)
        scores = torch.bmm(queries, keys.transpose(1, 2)) * spec.scale
        if spec.softcap:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        seen = at <= position
        if spec.window:
            seen &= at > position - spec.window
        scores = torch.where(seen, scores, -torch.inf)
        # What is not seen in the tile may be left over from another sequence: even NaN must count as zero.
        is_read = seen.any(1) & (at < contexts)
        if spec.window:  # a tile begins before the step's first row, which need not hold that row's window any more
            is_read &= at > firsts - spec.window
        values = torch.where(is_read[:, :, None], values, 0.0)
        highest = torch.maximum(maxima, scores.amax(-1, keepdim=True))
        floor = torch.where(highest == -torch.inf, 0.0, highest)
        weights = torch.exp(scores - floor)
        correction = torch.exp(maxima - floor)
        sums = sums * correction + weights.sum(-1, keepdim=True)
        outputs = outputs * correction + torch.bmm(weights, values)
        maxima = highest
    if cache.sinks is not None:
        sinks = cache.sinks.float().view(spec.num_kv_heads, group, 1).expand(-1, -1, _TILE).reshape(1, -1, num_rows, 1)
        sinks = sinks.reshape(spec.num_kv_heads, num_rows, 1).repeat(num_batched // spec.num_kv_heads, 1, 1)
        highest = torch.maximum(maxima, sinks)
        correction = torch.exp(maxima - highest)
        sums, outputs = sums * correction + torch.exp(sinks - highest), outputs * correction
    return outputs / sums


def _gather(pages: torch.Tensor, blocks: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """[tiles * heads, chunk, dim] in float32."""
    found = pages[blocks, offsets].float()
    return found.transpose(1, 2).reshape(-1, found.shape[1], found.shape[3])
