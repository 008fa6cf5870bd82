"""Which parts of a schema one value must follow together, and which parts the values inside of it.

`allOf` and `$ref` add parts, `anyOf` and `oneOf` choose one. Knows nothing about what the matcher can enforce.
"""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from serin_tokenizer_svc.errors import GrammarLimit
from serin_tokenizer_svc.schemas.document import SchemaDocument

MAX_CHOICES = 4096
"""Ways to choose among the branches for one value."""
MAX_STATES = 20_000
"""Different sets of parts that some value must follow."""

Part = dict[str, Any]
Together = tuple[Part, ...]
"""Parts of which a value follows all; their `$ref`, `allOf`, `anyOf` and `oneOf` are among them already."""
Key = frozenset[int]
"""Parts that a value must follow, before branches are chosen, by identity; 0 is the schema that is false."""


class Conjunctions:
    """All values that a schema speaks about.

    Args:
        document: the schema; its parts are not changed meanwhile.

    Attributes:
        root: the whole value.
        choices: for each value, the sets of parts of which it must follow one; none: no value is valid.

    Raises:
        GrammarLimit: there are too many.
    """

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._parts = {id(part): part for _, part in document.parts()}
        self.root = self._key([document.root])
        self.choices: dict[Key, list[Together]] = {}
        waiting = [self.root]
        while waiting:
            key = waiting.pop()
            if key in self.choices:
                continue
            if len(self.choices) == MAX_STATES:
                raise GrammarLimit(f"the JSON schema combines its parts in more than {MAX_STATES} ways")
            schemas = (False if one == 0 else self._parts[one] for one in key)
            self.choices[key] = list(itertools.islice(self._chosen(schemas, {}), MAX_CHOICES + 1))
            if len(self.choices[key]) > MAX_CHOICES:
                raise GrammarLimit(f"the JSON schema combines more than {MAX_CHOICES} branches for one value")
            waiting += [inner for chosen in self.choices[key] for inner in self._inside(chosen)]

    def member(self, chosen: Together, name: str) -> Key:
        """What the member of this name must follow, in an object that follows the chosen parts."""
        return self._key(schema for part in chosen for schema in _of_member(part, name))

    def item(self, chosen: Together, index: int) -> Key:
        """The same for an item of an array; behind the longest `prefix_items` all are alike."""
        return self._key(_of_item(part, index) for part in chosen)

    def _inside(self, chosen: Together) -> Iterator[Key]:
        for name in {name for part in chosen for name in (*names(part), *required(part))}:
            yield self.member(chosen, name)
        yield self._key(part.get("additionalProperties", True) for part in chosen)
        yield from (self._key([one]) for part in chosen for one in _mapping(part, "patternProperties").values())
        longest = max((len(prefix_items(part)) for part in chosen), default=0)
        yield from (self.item(chosen, index) for index in range(longest + 1))

    def _chosen(self, schemas: Iterable[Any], before: dict[int, Part]) -> Iterator[Together]:
        """Each choice among the branches of schemas, beside parts that are there already; a tuple is branches."""
        chosen, branches, waiting = dict(before), [], list(schemas)
        while waiting:
            schema = waiting.pop()
            if schema is False:
                return
            if isinstance(schema, tuple):
                branches.append(schema)
            elif isinstance(schema, dict) and id(schema) not in chosen:
                chosen[id(schema)] = schema
                waiting += [tuple(schema[word]) for word in ("anyOf", "oneOf") if isinstance(schema.get(word), list)]
                waiting += schema["allOf"] if isinstance(schema.get("allOf"), list) else []
                waiting += [self._document.target(schema)] if "$ref" in schema else []
        if not branches:
            yield tuple(chosen.values())
        for one in branches[0] if branches else ():
            yield from self._chosen([one, *branches[1:]], chosen)

    def _key(self, schemas: Iterable[Any]) -> Key:
        return frozenset(0 if one is False else id(one) for one in schemas if one is False or isinstance(one, dict))


def names(part: Part) -> list[str]:
    """Of the members that a part declares."""
    return list(_mapping(part, "properties"))


def required(part: Part) -> list[str]:
    """Names of members that a part requires."""
    found = part.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def prefix_items(part: Part) -> list[Any]:
    """Schemas of the first items."""
    found: list[Any] = next((part[word] for word in ("items", "prefixItems") if isinstance(part.get(word), list)), [])
    return list(found)


def _of_member(part: Part, name: str) -> Iterator[Any]:
    """Schemas that a part has for a member; where it has patterns and none matches, the matcher decides."""
    declared, patterns = _mapping(part, "properties"), _mapping(part, "patternProperties")
    found: list[Any] = [declared[name]] if name in declared else []
    for pattern, schema in patterns.items():
        with contextlib.suppress(re.error):
            found += [schema] if re.search(pattern, name) else []
    yield from found or ([] if patterns else [part.get("additionalProperties", True)])


def _of_item(part: Part, index: int) -> Any:
    first = prefix_items(part)
    if index < len(first):
        return first[index]
    return part.get("additionalItems", True) if isinstance(part.get("items"), list) else part.get("items", True)


def _mapping(part: Part, keyword: str) -> dict[str, Any]:
    found = part.get(keyword)
    return found if isinstance(found, dict) else {}
