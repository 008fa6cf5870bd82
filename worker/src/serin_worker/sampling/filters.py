"""Which tokens stay in the draw: min_p, top_k, top_p. What is dropped becomes minus infinity.

Each row's result depends on that row alone. Knows nothing about seeds or tokens already drawn.
"""

from collections.abc import Sequence
from math import log

import torch

from serin_worker.request import Sampling

_NUM_CANDIDATES = 1024


def filter_logits(logits: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Filter logits [rows, vocabulary], already divided by temperature; returns them, changed in place."""
    filtered = [i for i, sampling in enumerate(samplings) if sampling.has_filters]
    if not filtered:
        return logits
    whole = len(filtered) == len(samplings)
    chosen = logits if whole else logits[filtered]
    _filter_rows(chosen, [samplings[i] for i in filtered])
    if not whole:
        logits[filtered] = chosen
    return logits


def _filter_rows(x: torch.Tensor, samplings: Sequence[Sampling]) -> None:
    if any(s.min_p > 0 for s in samplings):
        shares = [log(s.min_p) if s.min_p > 0 else -torch.inf for s in samplings]
        x.masked_fill_(x < x.amax(-1, keepdim=True) + _column(shares, x), -torch.inf)
    ranked = [i for i, s in enumerate(samplings) if s.top_k > 0 or s.top_p < 1]
    if ranked:
        rows = x[ranked]
        size = x.shape[1]
        top_k = _column([float(samplings[i].top_k or size) for i in ranked], x)
        top_p = _column([samplings[i].top_p for i in ranked], x)
        x[ranked] = rows.masked_fill_(rows < _thresholds(rows, top_k, top_p), -torch.inf)


def _thresholds(x: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The smallest logit of each row that stays; a full sort only for rows that need more candidates than most do."""
    num_candidates = min(x.shape[1], _NUM_CANDIDATES)
    values = torch.topk(x, num_candidates).values
    total = _whole_total(x)
    is_limited = top_k < x.shape[1]
    threshold = _threshold(values, total, top_k, top_p, is_limited)
    if num_candidates < x.shape[1]:
        mass = (values - total).double().exp().sum(-1, keepdim=True)
        is_enough = (top_k <= num_candidates) | (~is_limited & (top_p < 1) & (mass >= top_p + 1e-6))
        is_short = ~is_enough.squeeze(1)
        if is_short.any():
            ordered = torch.sort(x[is_short], dim=-1, descending=True).values
            columns = (column[is_short] for column in (total, top_k, top_p, is_limited))
            threshold[is_short] = _threshold(ordered, *columns)
    return threshold


def _threshold(
    values: torch.Tensor, total: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, is_limited: torch.Tensor
) -> torch.Tensor:
    """From each row's logits in descending order; where top_k limits, probabilities are shares of those k tokens."""
    rank = torch.arange(values.shape[1], device=values.device)
    best = values.masked_fill(rank >= top_k, -torch.inf)
    total = torch.where(is_limited, best[:, :1] - torch.log_softmax(best, -1)[:, :1], total)
    probability = (best - total).double().exp()
    stays = ((torch.cumsum(probability, -1) - probability < top_p) & (best > -torch.inf)) | (rank == 0)
    return best.masked_fill(~stays, torch.inf).amin(-1, keepdim=True)


def _whole_total(x: torch.Tensor) -> torch.Tensor:
    """Logarithm of the sum of exponentials of each row; softmax sums every row by itself."""
    top, index = x.max(-1, keepdim=True)
    return top - torch.log_softmax(x, -1).gather(-1, index)


def _column(values: list[float], x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=x.device).unsqueeze(1)
