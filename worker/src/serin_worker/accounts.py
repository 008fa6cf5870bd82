"""What was sent for which attempt: kept for a while, for whoever settles it when the gateway that asked is gone.

Tokens count as sent once they are handed to their stream, whether or not anybody reads them there. Knows nothing about
prices, tenants or protobuf.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serin_worker.outputs import Delta, Output, Started

KEPT_S = 900.0
"""A lease lapses half a minute after its gateway died, and is looked into for five minutes more."""
MAX_KEPT = 65_536
MIN_PREFIX = 16


@dataclass(slots=True)
class Account:
    """One attempt's: ``num_tokens`` is by choice, up to the last one sent, prior output included."""

    name: str
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_tokens: dict[int, int] = field(default_factory=dict)
    num_running: int = 0
    ended_at: float = 0.0

    def note(self, output: Output) -> None:
        """An output is being sent."""
        if isinstance(output, Delta):
            end = output.first_position + len(output.token_ids)
            self.num_tokens[output.choice_index] = max(end, self.num_tokens.get(output.choice_index, 0))
        elif isinstance(output, Started) and not self.num_prompt_tokens:
            self.num_prompt_tokens, self.num_cached_tokens = output.num_prompt_tokens, output.num_cached_tokens


class Accounts:
    """All that run, and those that have ended lately, the oldest first.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, Account] = OrderedDict()

    @contextmanager
    def running(self, name: str) -> Iterator[Account]:
        """A stream's account; an attempt that comes back goes on with the one it has. No name: it is not kept."""
        account = self._known.get(name) or Account(name)
        if name:
            self._known[name] = account
        account.num_running += 1
        try:
            yield account
        finally:
            account.num_running -= 1
            account.ended_at = self._clock()
            if name:
                self._known.move_to_end(name)
            self._forget()

    def begun_with(self, prefix: str) -> list[Account]:
        """Those whose names begin so."""
        return [account for name, account in self._known.items() if name.startswith(prefix)]

    def _forget(self) -> None:
        horizon = self._clock() - KEPT_S
        while self._known:
            name, oldest = next(iter(self._known.items()))
            if oldest.num_running:
                self._known.move_to_end(name)
                return
            if len(self._known) <= MAX_KEPT and oldest.ended_at > horizon:
                return
            del self._known[name]
