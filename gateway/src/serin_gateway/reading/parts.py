"""What an answer consists of, once it is read."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """Text for the caller."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoned:
    """Text that the model wrote for itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of a tool that is offered; its arguments follow, and then its end."""

    name: str


@dataclass(frozen=True, slots=True)
class CallGrew:
    """More of the begun call's arguments, as the model wrote them."""

    arguments_json: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The begun call ends.

    Attributes:
        is_whole: all that it grew by is a JSON object; false: it broke off, and is the beginning of one.
    """

    is_whole: bool


CallPart = CallBegun | CallGrew | CallEnded
Part = Said | Reasoned | CallPart


def joined(parts: Iterable[Part]) -> list[Part]:
    """The same parts with neighbouring texts of one kind in one."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Said) and isinstance(last, Said):
            found[-1] = Said(last.text + part.text)
        elif isinstance(part, Reasoned) and isinstance(last, Reasoned):
            found[-1] = Reasoned(last.text + part.text)
        elif isinstance(part, CallGrew) and isinstance(last, CallGrew):
            found[-1] = CallGrew(last.arguments_json + part.arguments_json)
        else:
            found.append(part)
    return found
