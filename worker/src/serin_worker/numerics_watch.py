"""Whether the model still computes numbers: after several failures in a row it is asked a fixed question.

One request can end in NaN by its own doing, and whoever sends three of them must not be able to take a worker down:
the worker's own question decides. Knows nothing about engines or how the question is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable

from serin_worker.errors import NumericsLost, WorkerError

MAX_FAILURES_IN_A_ROW = 3


class NumericsWatch:
    """Counts failures in a row.

    Args:
        check: asks the model; False: the answer is not numbers.
    """

    def __init__(self, check: Callable[[], Awaitable[bool]]) -> None:
        self._check = check
        self._num_failures = 0
        self._suspicion = asyncio.Event()

    def succeeded(self) -> None:
        """A request ended well."""
        self._num_failures = 0

    def failed(self) -> None:
        """A request ended in what is not numbers."""
        self._num_failures += 1
        if self._num_failures >= MAX_FAILURES_IN_A_ROW:
            self._suspicion.set()

    async def lost(self) -> None:
        """Wait until the model computes no numbers any more; it may never do.

        Raises:
            NumericsLost: that is so.
        """
        while True:
            await self._suspicion.wait()
            self._suspicion.clear()
            num_failures, self._num_failures = self._num_failures, 0
            try:
                is_sound = await self._check()
            except WorkerError:  # the engine is busy or ending: it was not asked, and the next failures ask again
                continue
            if not is_sound:
                raise NumericsLost(num_failures)
