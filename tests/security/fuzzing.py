"""How long fuzzers run, and from which seed. Knows nothing about what they do."""

import os
import random
import time
from collections.abc import Iterator

import pytest

SHORT_S, LONG_S = 10.0, 600.0
LENGTHS = [
    pytest.param(SHORT_S, id="short"),
    pytest.param(LONG_S, id="long", marks=[pytest.mark.long, pytest.mark.timeout(2 * LONG_S)]),
]
"""For `parametrize`; SERIN_FUZZ_S says otherwise."""


def rounds(seconds: float) -> Iterator[int]:
    """Seeds of rounds until the time is over; the first is printed, and SERIN_SEED chooses it."""
    seed = int(os.environ.get("SERIN_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SERIN_SEED={seed}")
    ends_at = time.monotonic() + float(os.environ.get("SERIN_FUZZ_S") or seconds)
    while time.monotonic() < ends_at:
        print(f"round of seed {seed}")
        yield seed
        seed += 1
