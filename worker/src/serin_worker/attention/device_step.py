"""A step as a device sees it: whose rows they are, in tensors that a kernel reads there.

Knows nothing about kernels or schedules.
"""

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class DeviceStep:
    """Rows packed sequence after sequence; all tensors are int32 on one device.

    A sequence whose context is 0 has no rows and is padding, as is a row whose sequence is -1.
    """

    starts: torch.Tensor
    """[n + 1] first row of each sequence."""
    contexts: torch.Tensor
    """[n] length of each sequence once this step's rows are in the cache."""
    tables: torch.Tensor
    """[n, any] its blocks."""
    row_sequences: torch.Tensor
    """[rows] index of each row's sequence."""
    row_positions: torch.Tensor
    """[rows] position of each row in its sequence."""
    max_new: int
    """Most rows of one sequence."""
    num_padded: int
    """All rows, padding included."""
