"""What the prefix cache holds, as a log: stored and removed block keys with sequence numbers.

A watcher takes a snapshot and then asks for what came after it. Written by the engine's thread and read by others.
Knows nothing about blocks, tensors or networks: a key is bytes.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CacheEvent:
    """One change: the number is one more than that of the change before it."""

    number: int
    kind: Literal["stored", "removed"]
    keys: tuple[bytes, ...]


class CacheLog:
    """The newest ``capacity`` changes and the set of keys they add up to."""

    def __init__(self, capacity: int = 4096) -> None:
        self._events: deque[CacheEvent] = deque(maxlen=capacity)
        self._keys: set[bytes] = set()
        self._number = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def snapshot(self) -> tuple[int, frozenset[bytes]]:
        """The number of the last change, and every key stored after it."""
        with self._lock:
            return self._number, frozenset(self._keys)

    def since(self, number: int) -> list[CacheEvent] | None:
        """Changes after ``number``, oldest first; None when some are forgotten and a new snapshot is due."""
        with self._lock:
            missing = self._number - number
            if missing < 0 or missing > len(self._events):
                return None
            return [self._events[index] for index in range(len(self._events) - missing, len(self._events))]

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after each change, on the writer's thread; returns how to stop it."""
        with self._lock:
            self._listeners.append(callback)

        def stop() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return stop

    def stored(self, keys: Iterable[bytes]) -> None:
        """Note keys that became available."""
        self._append("stored", tuple(keys))

    def removed(self, keys: Iterable[bytes]) -> None:
        """Note keys that are gone."""
        self._append("removed", tuple(keys))

    def _append(self, kind: Literal["stored", "removed"], keys: tuple[bytes, ...]) -> None:
        if not keys:
            return
        with self._lock:
            self._number += 1
            self._events.append(CacheEvent(self._number, kind, keys))
            if kind == "stored":
                self._keys.update(keys)
            else:
                self._keys.difference_update(keys)
            listeners = tuple(self._listeners)
        for callback in listeners:
            callback()
