"""A caller's JSON schema as one document that may be changed: where each part stands, and what each `$ref` names.

Parts are dictionaries and booleans; what is no schema stays as it is, for whoever compiles it to complain about. Knows
nothing about what keywords mean.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from serin_tokenizer_svc.errors import GrammarRejected

_ONE = ("additionalProperties", "items", "additionalItems")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties")
_NAMING = frozenset({"$defs", "definitions", "$id", "id", "$anchor"})
"""What only gives names to parts: the document has its own."""


class SchemaDocument:
    """A copy of a schema, whose references are all of the form ``#/$defs/NAME``.

    Args:
        schema: what the caller wrote.

    Attributes:
        root: the schema itself, without what it refers to.
        definitions: the parts that are referred to, by name.

    Raises:
        GrammarRejected: a `$ref` names nothing in the document, or a part has an `$id` of its own.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._source = schema
        anchored = ((place, part.get("$anchor")) for place, part in _parts(schema, "#"))
        self._anchors = {name: place for place, name in anchored if isinstance(name, str)}
        self._names: dict[str, str] = {}
        """Of definitions, by the place that a reference gives."""
        self._unread: deque[str] = deque()
        self._places: dict[int, str] = {}
        self._parts: list[dict[str, Any]] = []
        self.definitions: dict[str, Any] = {}
        self.root: Any = self._copied(schema, "#")
        while self._unread:  # a definition may name others
            place = self._unread.popleft()
            self.definitions[self._names[place]] = self._copied(self._found(place), place)

    def parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each part and where its caller wrote it, inner ones first; places are JSON pointers (RFC 6901)."""
        return ((self._places[id(part)], part) for part in self._parts)

    def place(self, part: dict[str, Any], keyword: str = "") -> str:
        """Where a part stands, or one of its keywords."""
        return f"{self._places[id(part)]}/{_escaped(keyword)}" if keyword else self._places[id(part)]

    def target(self, part: dict[str, Any]) -> Any:
        """What the part's `$ref` names."""
        return self.definitions[part["$ref"].removeprefix("#/$defs/")]

    def whole(self, part: dict[str, Any] | None = None) -> dict[str, Any]:
        """One part, or all, as a schema by itself."""
        first = self.root if part is None else part
        return {**first, "$defs": self.definitions} if self.definitions else dict(first)

    def loops(self) -> Iterator[str]:
        """Places of the parts that contain themselves for one and the same value: no reader comes to an end there."""
        done: set[int] = set()
        for _, part in self.parts():
            waiting: list[tuple[dict[str, Any], bool]] = [(part, False)]
            around: set[int] = set()
            while waiting:
                one, is_left = waiting.pop()
                if is_left:
                    around.discard(id(one))
                    done.add(id(one))
                elif id(one) in around:
                    yield self.place(one)
                elif id(one) not in done:
                    around.add(id(one))
                    waiting += [(one, True), *((inner, False) for inner in self._beside(one))]

    def _beside(self, part: dict[str, Any]) -> list[dict[str, Any]]:
        """Parts that speak about the same value."""
        lists = [part[word] for word in ("allOf", "anyOf", "oneOf") if isinstance(part.get(word), list)]
        found = [one for listed in lists for one in listed] + ([self.target(part)] if "$ref" in part else [])
        return [one for one in found if isinstance(one, dict)]

    def _copied(self, schema: Any, place: str) -> Any:
        if not isinstance(schema, dict):
            return schema
        if "$id" in schema and place != "#":
            raise GrammarRejected(f"{place}/$id: parts with an address of their own are not supported")
        copy: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _NAMING:
                continue
            where = f"{place}/{_escaped(keyword)}"
            if keyword == "$ref":
                copy[keyword] = self._reference(value, where)
            elif keyword in _LISTS and isinstance(value, list):
                copy[keyword] = [self._copied(one, f"{where}/{at}") for at, one in enumerate(value)]
            elif keyword in _MAPS and isinstance(value, dict):
                copy[keyword] = {name: self._copied(one, f"{where}/{_escaped(name)}") for name, one in value.items()}
            else:
                copy[keyword] = self._copied(value, where) if keyword in _ONE else value
        self._places[id(copy)] = place
        self._parts.append(copy)
        return copy

    def _reference(self, reference: Any, where: str) -> str:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise GrammarRejected(
                f"{where}: {reference!r:.100} is no part of this schema, and the service does not fetch others"
            )
        place = self._anchors.get(reference[1:], unquote(reference))
        try:
            self._found(place)
        except (LookupError, ValueError, TypeError):
            raise GrammarRejected(f"{where}: {reference!r:.100} is no part of this schema") from None
        if place not in self._names:
            self._names[place] = f"part{len(self._names)}"
            self._unread.append(place)
        return f"#/$defs/{self._names[place]}"

    def _found(self, place: str) -> Any:
        found: Any = self._source
        for step in place.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found


def _parts(schema: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a schema that may be a part of it."""
    if isinstance(schema, dict):
        yield place, schema
    inner = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, value in inner:
        yield from _parts(value, f"{place}/{_escaped(str(key))}")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
