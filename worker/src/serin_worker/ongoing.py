"""A request between its arrival and its last output: when things happened, and what it has used.

Knows nothing about steps or blocks.
"""

from collections.abc import Collection

from serin_worker.outputs import Summary, TokenLogprobs
from serin_worker.sequence import Group


class Ongoing:
    """What the engine notes about a running request. Times are of one monotonic clock, in seconds."""

    def __init__(self, group: Group, arrived_at: float, end_ids: Collection[int]) -> None:
        self.group = group
        self.end_ids = end_ids
        self.scored: list[TokenLogprobs] = []
        self.num_output_tokens = 0
        self._arrived_at = arrived_at
        self._started_at = arrived_at
        self._first_token_at: float | None = None
        self._last_token_at = arrived_at

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompt that were found in the cache when the request first ran."""
        return min(self.group.num_cached or 0, self.group.num_prompt_tokens)

    def note_start(self, now: float) -> None:
        """Its first step begins."""
        self.group.is_started = True
        self._started_at = now

    def note_token(self, now: float) -> None:
        """A token was drawn."""
        self.num_output_tokens += 1
        self._last_token_at = now
        if self._first_token_at is None:
            self._first_token_at = now

    def summary(self) -> Summary:
        """What the request has used so far."""
        first = self._started_at if self._first_token_at is None else self._first_token_at
        return Summary(
            num_prompt_tokens=self.group.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            num_preemptions=self.group.num_preemptions,
            queue_s=self._started_at - self._arrived_at,
            prefill_s=first - self._started_at,
            decode_s=max(self._last_token_at - first, 0.0),
        )
