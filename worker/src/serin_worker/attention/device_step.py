"""Whose rows a step has, on a device: what kernels look up there instead of being told by the host.

Knows nothing about pages, layers or kernels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from serin_worker.attention.layer import StepSequences

ALIGNMENT = 4
"""Numbers: tensors begin at multiples of 16 bytes, as those that are allocated do; kernels are compiled for either."""


@dataclass(slots=True)
class DeviceStep:
    """A step's rows, packed sequence after sequence; padding rows follow the last.

    Tensors are int32 on the device. A CUDA graph that was captured with them is replayed for another step by writing
    into them: their shapes and ``max_new`` stay, and a sequence without rows, of context 0, is padding.
    """

    starts: torch.Tensor
    """[n + 1] first row of each sequence, then the end of the last."""
    contexts: torch.Tensor
    """[n] length of each sequence once this step's rows are in the cache."""
    tables: torch.Tensor
    """[n, width] its blocks."""
    row_sequences: torch.Tensor
    """[num_padded] which of the step's sequences a row belongs to; -1: it is padding."""
    row_positions: torch.Tensor
    """[num_padded] where in its sequence a row is; of padding, 0."""
    max_new: int
    """Most rows of one sequence: 1 in a step of decodes."""
    num_padded: int
    """Rows, padding included."""

    @classmethod
    def of(cls, step: "StepSequences", num_rows: int, device: torch.device) -> "DeviceStep":
        """A step on its device, by one copy that the host does not wait for.

        Args:
            step: what is copied.
            num_rows: rows, padding included; at least ``step.num_rows``.
            device: where to.
        """
        num_new = step.starts.diff()
        sequences = torch.repeat_interleave(num_new)
        firsts = (step.contexts - num_new - step.starts[:-1])[sequences]
        positions = torch.arange(len(sequences), dtype=torch.int32) + firsts
        padding = (0, num_rows - len(sequences))
        parts = (
            step.starts,
            step.contexts,
            step.tables,
            torch.nn.functional.pad(sequences, padding, value=-1),
            torch.nn.functional.pad(positions, padding),
        )
        sizes = [part.numel() + -part.numel() % ALIGNMENT for part in parts]
        packed = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
        for part, room in zip(parts, torch.split(packed, sizes), strict=True):
            room[: part.numel()] = part.reshape(-1)
        rooms = torch.split(packed.to(device, non_blocking=True), sizes)
        found = [room[: part.numel()].view(part.shape) for part, room in zip(parts, rooms, strict=True)]
        max_new = int(num_new.max()) if len(num_new) else 0
        return cls(found[0], found[1], found[2], found[3], found[4], max_new, num_rows)
