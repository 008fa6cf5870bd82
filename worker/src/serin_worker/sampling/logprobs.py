"""Log-probabilities for reports: the model's own distribution, before any processing.

Knows nothing about requests.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from serin_worker.outputs import TokenLogprobs
from serin_worker.sampling.to_host import to_host


class Logprobs(NamedTuple):
    """Of some rows, where their logits are: own [rows], the likeliest alternatives' [rows, any] and their ids."""

    own: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor


def logprobs_of(logits: torch.Tensor, token_ids: torch.Tensor, num_alternatives: int) -> Logprobs:
    """For each row of logits [rows, vocabulary]: that of its token [rows], and its likeliest alternatives."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    own = logprobs.gather(1, token_ids.long().unsqueeze(1)).squeeze(1)
    return Logprobs(own, *torch.topk(logprobs, min(num_alternatives, logits.shape[1])))


def reported(host: Logprobs, num_alternatives: Sequence[int]) -> list[TokenLogprobs]:
    """What is on the host as it is told, with as many alternatives as each row asked for."""
    own, values, ids = (tensor.tolist() for tensor in host)
    return [
        TokenLogprobs(logprob, tuple(zip(ids[i][:wanted], values[i][:wanted], strict=True)))
        for i, (logprob, wanted) in enumerate(zip(own, num_alternatives, strict=True))
    ]


def token_logprobs(
    logits: torch.Tensor, token_ids: Sequence[int], num_alternatives: Sequence[int]
) -> list[TokenLogprobs]:
    """For each row of logits [rows, vocabulary]: that of its token, and its likeliest alternatives, best first."""
    ids = torch.tensor(list(token_ids), device=logits.device)
    found = logprobs_of(logits, ids, max(num_alternatives, default=0))
    return reported(Logprobs(*to_host(found)), num_alternatives)
