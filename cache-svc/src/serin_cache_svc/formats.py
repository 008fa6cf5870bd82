"""Formats of stored answers: which one is written, which are read, and the keys of each.

Versions of cache-svc share one store. Each format has keys of its own: whoever reads it finds what others wrote in it,
whoever does not never meets it. So a version works under a key prefix of its own unless the others read its format,
and neither side has to ask the other. Knows nothing about what a format looks like inside.
"""

from dataclasses import dataclass

FORMAT = 1
"""What this version writes, 1 to 255. It grows when an older reader would misunderstand what is stored."""

READ = (1,)
"""What this version reads, likeliest first."""


@dataclass(frozen=True, slots=True)
class Formats:
    """What one version of the cache writes and reads."""

    written: int = FORMAT
    read: tuple[int, ...] = READ


def key(number: int, digest: bytes) -> str:
    """Where an answer in this format is kept. Format 1 has no prefix: it was there before there were others."""
    return digest.hex() if number == 1 else f"{number}.{digest.hex()}"
