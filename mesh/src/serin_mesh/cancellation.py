"""Cancels that get lost: found out, and raised after all.

``asyncio.wait_for`` before Python 3.12 passes over a cancel that arrives in the moment its future ends, and clients of
databases use it for every command. A loop whose cancel is lost goes on for ever, and whoever waits for its end with it.
Knows nothing about who calls what.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cancels_kept() -> Iterator[None]:
    """A block of calls of code that is not ours: a cancel of this task that was lost in it is raised at its end.

    Raises:
        asyncio.CancelledError: the task was cancelled during the block, whatever else came of it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except Exception as error:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
