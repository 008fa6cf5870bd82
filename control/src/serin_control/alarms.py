"""What stands wrong right now: a sentence each, until it is right again.

Knows nothing about what causes alarms. An observer hears of each that is raised or cleared.
"""

from collections import Counter
from collections.abc import Callable, Mapping

Observer = Callable[[str, str, bool], None]
"""Called with the alarm's key, its sentence, and whether it was raised (else cleared)."""


class Alarms:
    """Standing alarms by key. Keys of one origin share a prefix: ``nack/gateway-1/Cluster``."""

    def __init__(self, observer: Observer = lambda key, sentence, raised: None) -> None:
        self._standing: dict[str, str] = {}
        self._observer = observer

    def sentences(self) -> tuple[str, ...]:
        """All standing alarms, ordered by key."""
        return tuple(self._standing[key] for key in sorted(self._standing))

    def kinds(self) -> Mapping[str, int]:
        """How many stand of each origin: the first part of their keys."""
        return Counter(key.partition("/")[0] for key in self._standing)

    def raise_(self, key: str, sentence: str) -> None:
        """Let an alarm stand, or change its sentence."""
        if self._standing.get(key) != sentence:
            self._standing[key] = sentence
            self._observer(key, sentence, True)

    def clear(self, key: str) -> None:
        """It is right again. Clearing what does not stand has no effect."""
        sentence = self._standing.pop(key, None)
        if sentence is not None:
            self._observer(key, sentence, False)

    def replace(self, prefix: str, alarms: Mapping[str, str]) -> None:
        """Let exactly these alarms stand under a prefix; their keys are relative to it."""
        for key in [key for key in self._standing if key.startswith(prefix) and key[len(prefix) :] not in alarms]:
            self.clear(key)
        for key, sentence in alarms.items():
            self.raise_(prefix + key, sentence)
