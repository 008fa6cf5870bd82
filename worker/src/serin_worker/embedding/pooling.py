"""From the vectors of an input's tokens to its own (sentence-transformers' poolings; Reimers and Gurevych 2019).

Knows nothing about models or files.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from serin_worker.embedding.recipe import Pooling


def pool(hidden: torch.Tensor, mask: torch.Tensor, poolings: Sequence[Pooling]) -> torch.Tensor:
    """One vector for each input, [N, H x number of poolings] float32.

    Args:
        hidden: [N, L, H] vectors of tokens, those of the padding behind each input included.
        mask: [N, L], 1 for tokens and 0 for padding; each input has at least one token.
        poolings: joined end to end, in this order.
    """
    hidden = hidden.float()
    mask = mask.to(hidden.dtype)[..., None]
    return torch.cat([_POOLINGS[pooling](hidden, mask) for pooling in poolings], dim=1)


def shorten(vectors: torch.Tensor, num_dimensions: int, *, normalizes: bool) -> torch.Tensor:
    """The first ``num_dimensions`` components of each vector, scaled to length 1 where the model does so.

    Vectors of length 0 stay as they are.
    """
    vectors = vectors[:, :num_dimensions]
    return torch.nn.functional.normalize(vectors, dim=1) if normalizes else vectors


def _first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    at = mask[..., 0].sum(dim=1).long() - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), at]


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask == 0, -torch.inf).amax(dim=1)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _sum(hidden, mask) / mask.sum(dim=1)


def _mean_sqrt_len(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _sum(hidden, mask) / mask.sum(dim=1).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Weights grow with the position (Muennighoff 2022)."""
    positions = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)[None, :, None]
    weights = mask * positions
    return _sum(hidden, weights) / weights.sum(dim=1)


def _sum(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (hidden * weights).sum(dim=1)


_POOLINGS: Mapping[Pooling, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
