"""In multiples of how many rows does a product of rows and a fixed weight give a row the same bits always?

Kernels of others choose by the number of rows how they sum, in ways that differ between processors. Whether they do,
and from how many rows on they no longer do, is found out, not assumed. Knows nothing about layers or models.
"""

from collections.abc import Callable

import torch

MULTIPLES = (1, 2, 16)
_WIDE = 16_384
_SLICES = ((0, 1), (1, 2), (3, 5), (0, 8), (1, 15), (0, 16), (5, 17), (0, 32), (7, 33), (0, 64), (9, 99))
"""(first row, number of rows)"""


def row_multiple(
    multiply: Callable[[torch.Tensor], torch.Tensor], num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> int | None:
    """The smallest number of rows in whose multiples a row keeps its bits; None: in none that is of use.

    Args:
        multiply: rows [n, num_inputs] of ``dtype`` by a weight made of :func:`mirrored`, to [n, num_outputs].
        num_inputs: width of a row.
        num_outputs: width of a result.
        dtype: of rows.
    """
    is_wide = num_outputs > _WIDE
    num_rows = 48 if is_wide else 256
    rows = torch.randn((num_rows, num_inputs), generator=torch.Generator().manual_seed(1)).to(dtype)
    rows[::2] = mirrored(len(rows[::2]), num_inputs, dtype, sign=-1)
    together = multiply(rows)

    def keeps_bits(multiple: int) -> bool:
        counts = [(first, -(-count // multiple) * multiple) for first, count in _SLICES]
        # Some kernels differ for a few numbers of rows alone (37 to 47, seen with AMX), so all small ones are tried.
        counts += [(count % 5, count) for count in (*range(multiple, 65, multiple), *range(64, num_rows, 7 * multiple))]
        # A difference can be as rare as one row of fifty, so the smallest batch is tried on every row.
        counts += [(first, multiple) for first in range(0, num_rows, multiple * (8 if is_wide else 1))]
        slices = [slice(first, first + count) for first, count in counts if first + count <= num_rows]
        return all(torch.equal(multiply(rows[part]), together[part]) for part in slices)

    return next((multiple for multiple in MULTIPLES if keeps_bits(multiple)), None)


def mirrored(num_rows: int, width: int, dtype: torch.dtype, sign: int = 1) -> torch.Tensor:
    """Random rows in which each number has a twin somewhere else, times ``sign``.

    Of a product of such weights and rows with the other sign nothing is left but rounding, which shows any other order
    of summing; of random numbers one result in hundreds does.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(width, generator=generator)
    half = torch.randn((num_rows, width // 2), generator=generator).to(dtype)
    return torch.cat([half, half.new_zeros((num_rows, width % 2)), sign * half], dim=1)[:, places].contiguous()
