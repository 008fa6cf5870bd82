"""Whether workers and tokenizers live: each reports twice a second; one that stops is stopped, stuck or cut off.

Silence is counted in ticks of this process, not by the clock: a gateway that was itself held up takes nobody for dead.
Who never reported, or whose reports end with their connection, is not silent but unknown: its calls break by
themselves. Knows nothing about what is reported, or what becomes of the work on who is silent.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

TICK_S = 0.5
SILENT_TICKS = 5
"""Ticks without a word that mean silence: 2.5 s, five times as long as a report takes."""
LOST_TICKS = 30
"""Ticks after which nothing more is hoped for: 15 s."""

OnSilence = Callable[[], None]

log = structlog.get_logger()


class Pulses:
    """Signs of life by endpoint; `watch` is a task of whoever owns it."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._listeners: dict[str, set[OnSilence]] = {}

    def heard(self, endpoint: str, service: str = "worker") -> None:
        """It has reported: a worker, or another service."""
        if self.is_silent(endpoint):
            log.info(f"{service}.heard_again", endpoint=endpoint)
        self._heard[endpoint] = _Heard(service)

    def moved(self, endpoint: str) -> None:
        """Something else came from it: as good as a report, where there are reports."""
        if endpoint in self._heard:
            self.heard(endpoint, self._heard[endpoint].service)

    def unheard(self, endpoint: str) -> None:
        """Its reports have ended: whether it lives is not known from now on, unless it was silent already."""
        if not self.is_silent(endpoint):
            self._heard.pop(endpoint, None)

    def gone(self, endpoint: str) -> None:
        """It is no longer there to be heard."""
        self._heard.pop(endpoint, None)

    def is_silent(self, endpoint: str) -> bool:
        """Whether it used to report and stopped."""
        return self._num_silent_ticks(endpoint) >= SILENT_TICKS

    def is_lost(self, endpoint: str) -> bool:
        """Whether it has been silent for so long that it will hardly go on."""
        return self._num_silent_ticks(endpoint) >= LOST_TICKS

    def is_awaited(self, endpoint: str) -> bool:
        """Whether anybody would be told of its silence."""
        return endpoint in self._listeners

    def listen(self, endpoint: str, on_silence: OnSilence) -> None:
        """Call back when it falls silent, and with every tick that it stays so, until :meth:`forget`."""
        self._listeners.setdefault(endpoint, set()).add(on_silence)

    def forget(self, endpoint: str, on_silence: OnSilence) -> None:
        """Call back no more."""
        listeners = self._listeners.get(endpoint, set())
        listeners.discard(on_silence)
        if not listeners:
            self._listeners.pop(endpoint, None)

    async def watch(self) -> None:
        """Let time pass, for as long as this task lives."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Let one tick pass, for all of them before anybody hears of it: who asks who else speaks is told the same."""
        for heard in self._heard.values():
            heard.num_silent_ticks += 1
        for endpoint, heard in tuple(self._heard.items()):
            listeners = self._listeners.get(endpoint, set())
            if heard.num_silent_ticks == SILENT_TICKS:
                log.warning(f"{heard.service}.silent", endpoint=endpoint, num_calls=len(listeners))
            if self.is_silent(endpoint):
                for on_silence in tuple(listeners):
                    on_silence()

    def _num_silent_ticks(self, endpoint: str) -> int:
        heard = self._heard.get(endpoint)
        return heard.num_silent_ticks if heard else 0


@dataclass(slots=True)
class _Heard:
    service: str
    num_silent_ticks: int = 0
