"""How much work the serving benchmark does: the sizes of the promises, or small ones to try it on a tiny model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Lengths are in tokens."""

    num_threads: int = 1
    rounds: int = 3
    long_prompt: int = 4096
    prompt: int = 512
    prefix: int = 512
    context: int = 32_768
    chunk: int = 1024
    num_slots: int = 64
    num_gaps: int = 40
    num_arrivals: int = 7
    num_streams: int = 256
    stream_tokens: int = 2000
    kv_bytes: int = 4 * 10**9
    """Enough for what runs to grow while a long prompt arrives: else it waits for memory, not for its turn."""


TINY = Scale(
    rounds=1, long_prompt=96, prompt=32, prefix=32, context=192, chunk=32, num_slots=16, num_gaps=5, num_arrivals=1,
    num_streams=8, stream_tokens=50, kv_bytes=4 * 10**6,
)  # fmt: skip
"""For a model of some hundred positions."""
