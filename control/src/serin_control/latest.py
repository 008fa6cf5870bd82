"""The latest of a value that changes, for any number of watchers.

A watcher sees the newest value and may miss those between: nothing queues up behind a slow one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A value and how often it changed. ``version`` 0 means that it was never set."""

    def __init__(self) -> None:
        self.version = 0
        self._value: T | None = None
        self._changed = asyncio.Event()

    @property
    def value(self) -> T | None:
        """The newest value, or None before there is one."""
        return self._value

    def set(self, value: T) -> None:
        """Make this the newest value, and wake all who wait. Setting an equal value wakes nobody."""
        if self.version and value == self._value:
            return
        self._value = value
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, version: int) -> tuple[int, T]:
        """Wait until the version is above ``version``; returns the newest version and value."""
        while self.version <= version:
            await self._changed.wait()
        assert self._value is not None
        return self.version, self._value

    async def watch(self) -> AsyncIterator[T]:
        """The newest value, at first and after each change."""
        seen = 0
        while True:
            seen, value = await self.after(seen)
            yield value
