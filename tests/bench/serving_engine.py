"""An engine that a benchmark steps itself, and the clock of that.

With one thread seconds are CPU seconds of this process, so that other work on the machine counts for little; with more
they are of the wall. Knows nothing about what is promised.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import PRECISIONS
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.outputs import Delta, Started
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine

NAMESPACE = b"bench"
"""Root of the keys of those requests that share their prefixes."""


def clock_of(num_threads: int) -> Callable[[], float]:
    """Seconds of computing."""
    return time.process_time if num_threads == 1 else time.perf_counter


class DrivenEngine:
    """An engine whose steps are taken and timed here.

    Args:
        model: folder.
        precision: as `engine.py` names it.
        num_threads: of its kernels; they decide the clock, too.
        settings: more of :class:`EngineConfig`.
    """

    def __init__(self, model: Path, precision: str, num_threads: int, **settings: int | str) -> None:
        numbers, quantize = PRECISIONS[precision]
        config = EngineConfig(precision=numbers, quantize=quantize, num_threads=num_threads, **settings)
        self.clock = clock_of(num_threads)
        self.engine: Engine
        self.engine, self.about = load_engine(str(model), config, clock=self.clock)
        self.num_cached: dict[str, int] = {}
        """Tokens of prompts that were found in the cache, of requests that have begun."""
        self._random = random.Random(0)
        self._number = 0

    def prompt(self, num_tokens: int) -> list[int]:
        """Random ids of the vocabulary's first part."""
        size = min(self.about.vocabulary_size, 8_000)
        return [self._random.randrange(size // 8, size) for _ in range(num_tokens)]

    def add(self, prompt: Sequence[int], num_output: int, tenant: str = "", *, shares: bool = False) -> str:
        """Queue a greedy request of exactly so many tokens; returns its name."""
        self._number += 1
        name = str(self._number)
        stopping = Stopping(max_tokens=num_output, ignore_eos=True)
        namespace = NAMESPACE if shares else b""
        sampling = Sampling(temperature=0.0)
        self.engine.add(GenerationRequest(name, prompt, sampling, stopping, tenant=tenant, namespace=namespace))
        return name

    def step(self) -> tuple[float, set[str]]:
        """Seconds of a step, and whose tokens it made."""
        began = self.clock()
        outputs = self.engine.step()
        seconds = self.clock() - began
        self.num_cached |= {name: one.num_cached_tokens for name, one in outputs if isinstance(one, Started)}
        return seconds, {name for name, output in outputs if isinstance(output, Delta)}

    def first_token_s(self, name: str) -> float:
        """Step until a request's first token; seconds it took."""
        total = 0.0
        while True:
            seconds, made = self.step()
            total += seconds
            if name in made:
                return total

    def begin(self, names: Sequence[str]) -> None:
        """Step until each of them has made a token."""
        left = set(names)
        while left:
            left -= self.step()[1]

    def drain(self) -> None:
        """Step until nothing is left."""
        while self.engine.has_work:
            self.step()

    def abort(self, names: Sequence[str]) -> None:
        """End requests."""
        for name in names:
            self.engine.abort(name)
