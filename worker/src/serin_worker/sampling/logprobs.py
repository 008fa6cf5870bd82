"""Log-probabilities for reports: the model's own distribution, before any processing.

Knows nothing about requests.
"""

from collections.abc import Sequence

import torch

from serin_worker.outputs import TokenLogprobs


def token_logprobs(
    logits: torch.Tensor, token_ids: Sequence[int], num_alternatives: Sequence[int]
) -> list[TokenLogprobs]:
    """For each row of logits [rows, vocabulary]: that of its token, and its likeliest alternatives, best first."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    ids = torch.tensor(list(token_ids), device=logits.device).unsqueeze(1)
    own = logprobs.gather(1, ids).squeeze(1).tolist()
    most = min(max(num_alternatives, default=0), logits.shape[1])
    if most == 0:
        return [TokenLogprobs(logprob) for logprob in own]
    values, best = (tensor.tolist() for tensor in torch.topk(logprobs, most))
    return [
        TokenLogprobs(logprob, tuple(zip(best[i][:wanted], values[i][:wanted], strict=True)))
        for i, (logprob, wanted) in enumerate(zip(own, num_alternatives, strict=True))
    ]
