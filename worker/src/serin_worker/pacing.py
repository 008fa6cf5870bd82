"""How much of a prompt a decoding step may take along: what takes half as long as the step itself.

Hardly a step then takes twice as long while a long prompt arrives; the more requests wait for each one that runs, the
more they may take. Knows nothing about requests or models: it compares times.
"""

from collections import deque
from statistics import median

_LEAST_TOKENS = 4
"""At the end of a long prompt a token costs many times what it does at its start: attention is linear in context."""
_PROMPT_SHARE = 0.5
"""Of a decode's time, for prompts: 1.5 times as long on average leaves room for steps that take a fifth longer."""
_SHARE_OF_WAITING = 2.0
_REMEMBERED = 8
"""Steps whose median counts: one that was held up by another process says nothing."""
_MIXED_IN_A_ROW = 16
"""After so many steps one has decodes alone: what slows the machine is not to be blamed on the prompt for long."""


class Pacing:
    """Learns what decodes and prompt tokens cost, in seconds, from the steps that were run."""

    def __init__(self, max_num_tokens: int) -> None:
        self._max_num_tokens = max_num_tokens
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._prompt_token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._num_mixed = 0

    def allowance(self, num_decoding: int, num_behind: int) -> int:
        """Prompt tokens that fit into a step with so many decodes, while so many sequences wait for their prompt."""
        if not num_decoding or not self._decode_s or not self._prompt_token_s:
            return self._max_num_tokens
        crowd = _SHARE_OF_WAITING * num_behind / num_decoding
        if crowd <= 1.0 and self._num_mixed >= _MIXED_IN_A_ROW:
            return 0
        seconds = median(self._decode_s) * max(_PROMPT_SHARE, crowd if crowd > 1.0 else 0.0)
        token_s = median(self._prompt_token_s)
        fitting = int(seconds / token_s) if token_s else self._max_num_tokens
        return max(_LEAST_TOKENS, min(fitting, self._max_num_tokens))

    def observe(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step of so many decodes and prompt tokens took so long."""
        self._num_mixed = self._num_mixed + 1 if num_decodes and num_prompt_tokens else 0
        if not num_prompt_tokens:
            self._decode_s.append(seconds)
        elif num_prompt_tokens >= _LEAST_TOKENS:
            decode_s = median(self._decode_s) if num_decodes and self._decode_s else 0.0
            self._prompt_token_s.append(max(seconds - decode_s, 0.0) / num_prompt_tokens)
