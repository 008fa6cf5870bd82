"""What an answer consists of, once it is read."""

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
class Called:
    """A whole call: the name of a tool that is offered, and a JSON object as the model wrote it."""

    name: str
    arguments_json: str


Part = Said | Reasoned | Called


def joined(parts: list[Part]) -> list[Part]:
    """The same parts with neighbouring texts of one kind in one."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Said) and isinstance(last, Said):
            found[-1] = Said(last.text + part.text)
        elif isinstance(part, Reasoned) and isinstance(last, Reasoned):
            found[-1] = Reasoned(last.text + part.text)
        else:
            found.append(part)
    return found
