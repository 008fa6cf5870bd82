"""Parts of an answer with each call as one: what is left when how it grew does not matter."""

from dataclasses import dataclass

from serin_gateway.reading.call_text import Called
from serin_gateway.reading.parts import CallBegun, CallEnded, CallGrew, joined


@dataclass(frozen=True)
class Broke:
    """A call that was told, and broke off."""

    name: str
    told: str


def made(parts):
    """The parts with each call as one; every call begins, grows and ends."""
    found, parts = [], iter(joined(parts))
    for part in parts:
        if isinstance(part, CallBegun):
            grew = next(parts)
            assert isinstance(grew, CallGrew)
            ended = next(parts)
            assert isinstance(ended, CallEnded)
            found.append((Called if ended.is_whole else Broke)(part.name, grew.arguments_json))
        else:
            found.append(part)
    return found
