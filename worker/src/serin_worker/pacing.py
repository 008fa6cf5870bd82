"""How much of a prompt a decoding step may take along: what takes half as long as the step itself.

Hardly a step then takes twice as long while a long prompt arrives; the more requests wait for each one that runs, the
more they may take. Linear layers multiply rows by whole tiles and attention reads the prompt's context once for all of
a chunk, so that what tokens cost is no multiple of their number: what steps of so many tiles took is remembered. Knows
nothing about requests or models: it compares times.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

_ROWS = 16
"""In a tile: a step of 17 rows takes as long as one of 32, so tiles are filled."""
_LEAST_TOKENS = 4
"""Of a prompt in a step: fewer are not worth reading its context."""
_PROMPT_SHARE = 0.5
"""Of a decode's time, for prompts: 1.5 times as long on average leaves room for steps that take a fifth longer."""
_NEARLY = 1.25
"""Times that share what is smallest may take: even then hardly a step takes twice as long as its decodes."""
_SHARE_OF_WAITING = 2.0
_REMEMBERED = 8
"""Steps whose median counts: one that was held up by another process says nothing."""
_FRESH, _TRIED_AGAIN = 128, 16
"""Steps with a prompt after which what others took says nothing, since contexts have grown: what is too much is
tried in less than one of a hundred. And after which what nearly fitted is tried again."""
_IN_A_ROW, _NEWLY_IN_A_ROW = 16, 4
"""After so many steps with a prompt one has decodes alone: what slows the machine is not to be blamed on the prompt for
long. Sooner where the decodes are others than those that were looked at."""
_LIKE = 1.25
"""Times as many decodes as were looked at alone, or as few: what was known of others, and of prompts beside them, says
nothing."""
_MOST_GROWTH = 2.0
"""From the most tokens that are known to fit, to what is tried next."""


@dataclass(slots=True)
class _Added:
    """What steps took longer with prompts of so many tiles than without, in seconds, and when the last one was."""

    last: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Pacing:
    """Learns what decodes and prompts cost, in seconds, from the steps that were run."""

    def __init__(self, max_num_tokens: int) -> None:
        self._max_num_tokens = max_num_tokens
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._prompt_token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._added: dict[int, _Added] = {}
        """By the tiles that a step had more than its decodes need, of prompts that filled them."""
        self._num_known = 0
        self._num_mixed = 0
        self._num_in_a_row = 0
        self._is_alone_wanted = False

    def allowance(self, num_decoding: int, num_behind: int) -> int:
        """Prompt tokens that fit into a step with so many decodes, while so many sequences wait for their prompt."""
        self._is_alone_wanted = False
        if not num_decoding:
            return self._max_num_tokens
        crowd = _SHARE_OF_WAITING * num_behind / num_decoding
        most_in_a_row = _IN_A_ROW if self._is_known(num_decoding) else _NEWLY_IN_A_ROW
        if crowd <= 1.0 and self._num_in_a_row >= most_in_a_row:
            self._is_alone_wanted = True
            return 0
        if not self._decode_s or not self._prompt_token_s:
            return self._max_num_tokens
        seconds = median(self._decode_s) * max(_PROMPT_SHARE, crowd if crowd > 1.0 else 0.0)
        return min(max(_LEAST_TOKENS, self._fitting(num_decoding, seconds)), self._max_num_tokens)

    def observe(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step of so many decodes and prompt tokens took so long."""
        is_mixed = bool(num_decodes and num_prompt_tokens)
        # Who was to have the step alone did not: other prompts are not this pace's, and may come without an end.
        self._num_in_a_row = self._num_in_a_row + 1 if is_mixed and not self._is_alone_wanted else 0
        if not num_prompt_tokens:
            if not self._is_known(num_decodes):
                self._decode_s.clear()
                self._added.clear()
            self._num_known = num_decodes
            self._decode_s.append(seconds)
        elif num_prompt_tokens >= _LEAST_TOKENS:
            is_compared = num_decodes and self._decode_s
            added = max(seconds - median(self._decode_s), 0.0) if is_compared else seconds
            self._prompt_token_s.append(added / num_prompt_tokens)
            if is_compared:
                self._note(num_decodes, num_prompt_tokens, added)

    def _note(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """Remember what a prompt added to a step, unless it left its last tile half empty."""
        self._num_mixed += 1
        tiles = _tiles(num_decodes, num_prompt_tokens)
        if _filling(num_decodes, tiles) - num_prompt_tokens < _LEAST_TOKENS:
            added = self._added.setdefault(tiles, _Added())
            added.last = self._num_mixed
            added.seconds.append(seconds)
        since = self._num_mixed - _FRESH
        self._added = {tiles: one for tiles, one in self._added.items() if one.last > since}

    def _is_known(self, num_decoding: int) -> bool:
        """Whether so many decodes are about as many as those that were last looked at alone."""
        return num_decoding <= _LIKE * self._num_known and self._num_known <= _LIKE * num_decoding

    def _fitting(self, num_decoding: int, seconds: float) -> int:
        """Prompt tokens that take no longer than this: those of the most tiles that are known to, or of a few more.

        What is tried may be known to fit in proportion, or if half of what it costs does not grow with it. The last
        is what it takes to leave small chunks of long prompts, which mostly read their context.
        """
        known = {
            tiles: median(one.seconds)
            for tiles, one in self._added.items()
            if _filling(num_decoding, tiles) >= _LEAST_TOKENS
        }
        best = max((tiles for tiles, added in known.items() if added <= seconds), default=None)
        if best is None:
            return self._smallest(num_decoding, seconds, known)
        num_tokens, more = _filling(num_decoding, best), _filling(num_decoding, best + 1)
        growth = min(seconds / known[best], _MOST_GROWTH) if known[best] else _MOST_GROWTH
        tried = _full_tiles(num_decoding, num_tokens * growth)
        if known[best] * (1 + more / num_tokens) / 2 <= seconds:
            tried = max(tried, best + 1)
        too_many = (tiles for tiles in known if tiles > best and not self._is_worth_another(tiles, seconds))
        return _filling(num_decoding, max(best, min(tried, min(too_many, default=tried + 1) - 1)))

    def _smallest(self, num_decoding: int, seconds: float, known: dict[int, float]) -> int:
        """Prompt tokens where no tiles are known to fit: those of the smallest, if they nearly do, or fewer."""
        token_s = median(self._prompt_token_s)
        num_tokens = int(min(seconds / token_s, self._max_num_tokens)) if token_s else self._max_num_tokens
        if (smallest := min(known, default=None)) is not None:
            if known[smallest] <= _NEARLY * seconds:
                return _filling(num_decoding, smallest)
            num_tokens = min(num_tokens, _filling(num_decoding, smallest) - _LEAST_TOKENS - 1)
        filled = (num_decoding + num_tokens + _LEAST_TOKENS) // _ROWS * _ROWS - num_decoding
        return filled if filled >= _LEAST_TOKENS else num_tokens

    def _is_worth_another(self, tiles: int, seconds: float) -> bool:
        """Whether steps of so many tiles, which took too long, are tried again."""
        added = self._added[tiles]
        return self._num_mixed - added.last >= _TRIED_AGAIN and median(added.seconds) <= _NEARLY * seconds


def _tiles(num_decoding: int, num_tokens: int) -> int:
    """Tiles that a step with so many prompt tokens has more than its decodes need."""
    return -(-(num_decoding + num_tokens) // _ROWS) - -(-num_decoding // _ROWS)


def _full_tiles(num_decoding: int, num_tokens: float) -> int:
    """The same, of those that so many tokens fill."""
    return int(num_decoding + num_tokens) // _ROWS - -(-num_decoding // _ROWS)


def _filling(num_decoding: int, num_tiles: int) -> int:
    """Prompt tokens that fill the decodes' own last tile and so many more."""
    return (-(-num_decoding // _ROWS) + num_tiles) * _ROWS - num_decoding
