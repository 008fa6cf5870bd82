"""How a GPU's kernels cut a layer up: rows and keys that a program works on at a time, and warps for it.

Knows nothing about kernels.
"""

import math
from typing import NamedTuple

import torch

from serin_worker.attention.layer import LayerSpec
from serin_worker.rounding import power_of_two


class Tile(NamedTuple):
    """What one program of a kernel works on at a time."""

    num_rows: int
    """Rows of the matrix product: query rows, times the query heads that share their keys. A power of two."""
    num_keys: int
    num_warps: int
    num_stages: int
    """Tiles of keys and values that are on their way from memory while one is computed with, that one included."""


class Tiling(NamedTuple):
    """How a layer is cut up. ``first_split`` is a multiple of both tiles' keys."""

    prompts: Tile
    decodes: Tile
    first_split: int
    """Keys of the first splits of a context; later ones are longer."""
    splits_prompts: bool
    """Whether a prompt's rows are summed up by the splits of a decode."""


# Chosen by what the compiler makes of them for compute capability 9.0 (registers, spills, shared memory, instructions)
# and from what is published of other kernels; measured on no device yet. Heads are padded to powers of two: the first
# number is the widest of keys and values that a row of the table is for.

_INVARIANT_TILES = (
    # Decodes use the tile of prompts: another instruction may add in another order. wgmma wants 64 rows of 4 warps;
    # those that a decode leaves empty cost it little, since it waits for memory: 64 operations a byte of 300 that are
    # possible. Three stages of 32 KB let two programs share a processor. 204 and 255 registers.
    (128, Tile(num_rows=64, num_keys=64, num_warps=4, num_stages=3)),
    # Sums of a split and of all before it, 64 x 256 each, are more than there are registers: half the rows by mma.sync.
    (256, Tile(num_rows=32, num_keys=32, num_warps=4, num_stages=2)),
    (math.inf, Tile(num_rows=16, num_keys=16, num_warps=4, num_stages=2)),
)
_FAST_PROMPTS = (
    # Two groups of warps, 64 rows each, share what they read: SGLang's choice for this capability too. 194 registers.
    (128, Tile(num_rows=128, num_keys=64, num_warps=8, num_stages=3)),
    # Its 196 KB leave room for one program.
    (256, Tile(num_rows=128, num_keys=64, num_warps=8, num_stages=2)),
    (math.inf, Tile(num_rows=16, num_keys=32, num_warps=4, num_stages=2)),
)
_FAST_DECODES = (
    # The smallest product there is holds 16 heads. Programs of 39 KB and 168 registers: three share a processor.
    (128, Tile(num_rows=16, num_keys=64, num_warps=4, num_stages=3)),
    (256, Tile(num_rows=16, num_keys=64, num_warps=4, num_stages=2)),
    (math.inf, Tile(num_rows=16, num_keys=32, num_warps=4, num_stages=2)),
)
# No tensor core multiplies float32 as it is; what is multiplied in vain costs time.
_FLOAT32 = Tile(num_rows=16, num_keys=16, num_warps=4, num_stages=2)

_FIRST_SPLIT = 256
"""2,000 keys of 8 heads make 64 programs; a partial result is a 250th of what its split read, for each query head."""


def tiling_of(spec: LayerSpec, dtype: torch.dtype, *, invariant: bool) -> Tiling:
    """How a layer is cut up for its heads' sizes and type."""
    widest = max(padded(spec.key_dim), padded(spec.value_dim))

    def of(table: tuple[tuple[float, Tile], ...]) -> Tile:
        tile = _FLOAT32 if dtype is torch.float32 else next(tile for limit, tile in table if widest <= limit)
        return tile._replace(num_rows=max(tile.num_rows, power_of_two(spec.num_query_heads // spec.num_kv_heads)))

    prompts, decodes = (_INVARIANT_TILES, _INVARIANT_TILES) if invariant else (_FAST_PROMPTS, _FAST_DECODES)
    return Tiling(of(prompts), of(decodes), _FIRST_SPLIT, splits_prompts=invariant)


def padded(dim: int) -> int:
    """A head's numbers as a matrix product takes them."""
    return max(16, power_of_two(dim))
