"""A caller's JSON schema as one that the matcher enforces to the letter, or what of it cannot be.

Knows nothing about the grammar around it or about vocabularies.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serin_tokenizer_svc.errors import GrammarRejected
from serin_tokenizer_svc.schemas.conjunctions import Conjunctions
from serin_tokenizer_svc.schemas.dates import keep_dates
from serin_tokenizer_svc.schemas.document import SchemaDocument
from serin_tokenizer_svc.schemas.least import Least, least_text
from serin_tokenizer_svc.schemas.members import keep_count, keep_members
from serin_tokenizer_svc.schemas.numbers import is_kept, keep_bounds


@dataclass(frozen=True, slots=True)
class Enforced:
    """A schema that can be enforced.

    Attributes:
        schema: for the matcher.
        least: the shortest text that it allows.
        parts: its parts as schemas by themselves, and where each was written, inner ones first.
    """

    schema: dict[str, Any]
    least: Least
    parts: tuple[tuple[str, dict[str, Any]], ...] = ()


def enforceable(schema: dict[str, Any], *, lenient: bool) -> Enforced:
    """What can be enforced of a schema.

    Args:
        schema: what the caller wrote; it stays as it is.
        lenient: leave out what cannot be enforced, instead of refusing it.

    Raises:
        GrammarRejected: something cannot be enforced (the message begins with its place), or no value is valid.
        GrammarLimit: its parts combine in too many ways.
    """
    try:
        document = SchemaDocument(schema)
    except GrammarRejected:
        if lenient:
            return Enforced(schema, Least(0, "#"))
        raise
    _settle(_of_parts(document), lenient=lenient)
    for place in document.loops():
        raise GrammarRejected(f"{place}: allows no text at all: it refers to itself for the same value")
    values = Conjunctions(document)
    least = least_text(document, values)
    if math.isinf(least.num_bytes):
        raise GrammarRejected(f"{least.place}: allows no text at all: what it wants has no end, or contradicts itself")
    _settle(_of_values(document, values), lenient=lenient)
    return Enforced(document.whole(), least, tuple((place, document.whole(part)) for place, part in document.parts()))


def _settle(faults: Iterator[tuple[str, str]], *, lenient: bool) -> None:
    """Leave out what cannot be enforced, or refuse the first of it."""
    for place, why in faults:
        if not lenient:
            raise GrammarRejected(f"{place}: {why}")


def _of_parts(document: SchemaDocument) -> Iterator[tuple[str, str]]:
    for _, part in document.parts():
        keep_dates(part)
        for keyword, why in keep_bounds(part):
            yield document.place(part, keyword), why
        for keyword in ("const", "enum"):
            if not is_kept(part.get(keyword)):
                del part[keyword]
                yield document.place(part, keyword), "a number of so many digits cannot be enforced"
        why = keep_count(part)
        if why:
            yield document.place(part, "minProperties"), why


def _of_values(document: SchemaDocument, values: Conjunctions) -> Iterator[tuple[str, str]]:
    for chosen in (chosen for choices in values.choices.values() for chosen in choices):
        steps = [part for part in chosen if "multipleOf" in part]
        if len({part["multipleOf"] for part in steps if isinstance(part["multipleOf"], int | float)}) > 1:
            yield document.place(steps[-1], "multipleOf"), "several for one number cannot be enforced"
    yield from keep_members(document, values)
