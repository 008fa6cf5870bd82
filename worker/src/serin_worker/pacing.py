"""How much of a prompt a decoding step may take along: what takes about as long as the step itself.

Running answers then slow down to half their speed at most while a long prompt arrives; the more requests wait for each
one that runs, the more they may take. Knows nothing about requests or models: it compares times.
"""

_SMOOTHING = 0.2
_LEAST_TOKENS = 16
_SHARE_OF_WAITING = 2.0


class Pacing:
    """Learns what decodes and prompt tokens cost, in seconds, from the steps that were run."""

    def __init__(self, max_num_tokens: int) -> None:
        self._max_num_tokens = max_num_tokens
        self._decode_s: float | None = None
        self._prompt_token_s: float | None = None

    def allowance(self, num_decoding: int, num_behind: int) -> int:
        """Prompt tokens that fit into a step with so many decodes, while so many sequences wait for their prompt."""
        if not num_decoding or not self._decode_s or not self._prompt_token_s:
            return self._max_num_tokens
        seconds = self._decode_s * max(1.0, _SHARE_OF_WAITING * num_behind / num_decoding)
        return max(_LEAST_TOKENS, min(int(seconds / self._prompt_token_s), self._max_num_tokens))

    def observe(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step of so many decodes and prompt tokens took so long."""
        if not num_prompt_tokens:
            self._decode_s = _smoothed(self._decode_s, seconds)
        elif num_prompt_tokens >= _LEAST_TOKENS:
            alone_s = seconds - (self._decode_s or 0.0) if num_decodes else seconds
            self._prompt_token_s = _smoothed(self._prompt_token_s, max(alone_s, 0.0) / num_prompt_tokens)


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)
