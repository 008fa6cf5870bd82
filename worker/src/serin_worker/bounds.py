"""What a request must fit into to run here: the context, the vocabulary.

Knows nothing about queues or what is running.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from serin_worker.errors import PromptTooLong, RequestRefused
from serin_worker.request import GenerationRequest, ScoreRequest


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one model and its cache."""

    context_length: int
    """Most tokens of a sequence, prompt and output."""
    vocabulary_size: int
    end_ids: frozenset[int]
    """Ids by which the model itself ends."""
    max_num_waiting: int = 1024
    """Tenants that have no request here yet may wait beside these, as many as there are spare places."""

    def within(self, num_cache_tokens: int) -> "Bounds":
        """The same, with no sequence longer than what the whole cache holds."""
        return replace(self, context_length=min(self.context_length, num_cache_tokens))

    def check(self, request: GenerationRequest | ScoreRequest) -> None:
        """Refuse a request that can never run.

        Raises:
            PromptTooLong: prompt and prior output leave no room for a token.
            RequestRefused: an id is outside the vocabulary.
        """
        self._check_ids("prompt", request.prompt_ids)
        num_tokens = len(request.prompt_ids)
        if isinstance(request, ScoreRequest):
            self._check_ids("target", request.target_ids)
            num_tokens += len(request.target_ids) - 1
        else:
            self._check_ids("logit_bias", tuple(request.sampling.logit_bias))
            self._check_ids("stop_token_ids", tuple(request.stopping.stop_ids))
            for prior in request.prior:
                self._check_ids("prior", prior.token_ids)
                if num_tokens + len(prior.token_ids) > self.context_length:  # up to it, a choice is complete
                    raise PromptTooLong(num_tokens + len(prior.token_ids), self.context_length)
        if num_tokens >= self.context_length:
            raise PromptTooLong(num_tokens, self.context_length)

    def end_ids_of(self, request: GenerationRequest | ScoreRequest) -> Collection[int]:
        """Ids that end a choice of this request."""
        if isinstance(request, ScoreRequest):
            return frozenset()
        own = frozenset() if request.stopping.ignore_eos else self.end_ids
        return own | request.stopping.stop_ids

    def _check_ids(self, parameter: str, ids: Sequence[int]) -> None:
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
            bad = next(i for i in ids if not 0 <= i < self.vocabulary_size)
            raise RequestRefused(parameter, f"token id {bad} is outside the vocabulary of {self.vocabulary_size} ids")
