"""The noise of a draw: a pure function of (seed, choice, position, purpose) and the token's id.

The likeliest token after adding Gumbel noise to logits is a draw from their softmax (the Gumbel-max trick), so two runs
that see the same logits draw the same token, wherever and in whatever batch they run. Knows nothing about models.
"""

from collections.abc import Sequence
from enum import IntEnum

import torch

from serin_worker.request import Sampling
from serin_worker.sampling.filters import filter_logits
from serin_worker.sampling.philox import philox


class Purpose(IntEnum):
    """What a draw is for; draws for different purposes are independent."""

    TOKEN = 0


def gumbel_noise(
    names: Sequence[tuple[int, int, int]], vocabulary_size: int, device: torch.device, purpose: Purpose = Purpose.TOKEN
) -> torch.Tensor:
    """Standard Gumbel noise [rows, vocabulary] in float32 for each (seed, choice, position)."""
    table = torch.tensor(
        [(s & 0xFFFFFFFF, (s >> 32) & 0xFFFFFFFF, choice, position) for s, choice, position in names],
        dtype=torch.int64,
        device=device,
    ).view(len(names), 4, 1)
    index = torch.arange(-(-vocabulary_size // 4), dtype=torch.int64, device=device)
    index = index.expand(len(names), -1)
    purposes = torch.full((1, 1), int(purpose), dtype=torch.int64, device=device)
    words = philox((index, table[:, 3], table[:, 2], purposes), (table[:, 0], table[:, 1]))
    bits = torch.stack(words, dim=-1).view(len(names), -1)[:, :vocabulary_size]
    # In double precision: a last bit that differs between vector widths then does not survive rounding to float32.
    uniform = (bits.double() + 0.5) * 2.0**-32
    return uniform.neg_().log1p_().neg_().log_().neg_().float()


def take(logits: torch.Tensor, samplings: Sequence[Sampling], names: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """A token [rows] for each row of logits [rows, vocabulary] in float32: temperature, filters, noise, the largest."""
    temperature = torch.tensor([sampling.temperature for sampling in samplings], device=logits.device)
    scaled = filter_logits(logits / temperature.unsqueeze(1), samplings)
    return (scaled + gumbel_noise(names, logits.shape[1], logits.device)).argmax(dim=-1)
