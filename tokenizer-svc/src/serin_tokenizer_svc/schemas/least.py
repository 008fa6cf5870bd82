"""How short a valid JSON text can be: a schema whose shortest one is endless, or longer than a context, helps nobody.

A lower bound: patterns, and how long a number must be, are not looked at. Found as the least fixed point (Knuth, "A
generalization of Dijkstra's algorithm", 1977): no value is known to be valid, until the values inside of it are.
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field

from serin_tokenizer_svc.schemas.conjunctions import Conjunctions, Key, Part, Together, prefix_items, required
from serin_tokenizer_svc.schemas.document import SchemaDocument

_LITERALS = {"null": 4, "boolean": 4, "integer": 1, "number": 1}
_TYPES = (*_LITERALS, "string", "array", "object")


@dataclass(frozen=True, slots=True)
class Least:
    """The shortest valid text.

    Attributes:
        num_bytes: no text of fewer bytes is valid; infinite: none is at all.
        place: the keyword that makes it so long.
    """

    num_bytes: float
    place: str


@dataclass(slots=True)
class _Form:
    """A value of one type: bytes of its own, and the values inside that it must have."""

    num_bytes: float
    place: str
    inside: list[tuple[int, Key, str]] = field(default_factory=list)
    """How many of each, and why."""

    def total(self, least: dict[Key, float]) -> float:
        return self.num_bytes + sum(count * least[key] for count, key, _ in self.inside)


def least_text(document: SchemaDocument, values: Conjunctions) -> Least:
    """The shortest text that a schema allows."""
    forms = {key: _forms(key, document, values) for key in values.choices}
    users: dict[Key, set[Key]] = defaultdict(set)
    for key, its in forms.items():
        for form in its:
            for _, inner, _ in form.inside:
                users[inner].add(key)
    least = dict.fromkeys(forms, math.inf)
    changed = dict.fromkeys(forms)
    while changed:
        key, _ = changed.popitem()
        found = min((form.total(least) for form in forms[key]), default=math.inf)
        if found < least[key]:
            least[key] = found
            changed.update(dict.fromkeys(users[key]))
    return Least(least[values.root], _blamed(values.root, forms, least))


def _blamed(root: Key, forms: dict[Key, list[_Form]], least: dict[Key, float]) -> str:
    """Follow what weighs most, as far down as it weighs more than the value around it by itself."""
    key, place, seen = root, "#", {root}
    while forms[key]:
        form = min(forms[key], key=lambda one: (one.total(least), one.num_bytes))
        weights = [(count * least[inner], inner, where) for count, inner, where in form.inside]
        weight, inner, where = max(weights, key=lambda one: one[0], default=(-1.0, key, ""))
        if weight <= form.num_bytes:
            return form.place
        place = where
        if inner in seen:
            break
        seen.add(inner)
        key = inner
    return place


def _forms(key: Key, document: SchemaDocument, values: Conjunctions) -> list[_Form]:
    return [form for chosen in values.choices[key] for form in _of_choice(chosen, document, values)]


def _of_choice(chosen: Together, document: SchemaDocument, values: Conjunctions) -> list[_Form]:
    place = document.place(chosen[0]) if chosen else "#"
    constants = [part for part in chosen if "const" in part or isinstance(part.get("enum"), list)]
    if constants:
        sizes = [(_shortest_constant(part), document.place(part, _constant(part))) for part in constants]
        return [_Form(*max(sizes))]
    found = []
    for kind in _TYPES:
        if not all(_may_be(part, kind) for part in chosen):
            continue
        if kind in _LITERALS:
            found.append(_Form(_LITERALS[kind], place))
        elif kind == "string":
            num_chars, where = _most("minLength", "maxLength", chosen, document, place)
            found.append(_Form(2 + num_chars, where))
        else:
            found.append((_array if kind == "array" else _object)(chosen, document, values, place))
    return found


def _array(chosen: Together, document: SchemaDocument, values: Conjunctions, place: str) -> _Form:
    num_items, where = _most("minItems", "maxItems", chosen, document, place)
    if math.isinf(num_items):
        return _Form(num_items, where)
    first = min(int(num_items), max((len(prefix_items(part)) for part in chosen), default=0))
    inside = [(1, values.item(chosen, index), where) for index in range(first)]
    rest = int(num_items) - first
    return _Form(
        2 + max(0, num_items - 1), where, [*inside, (rest, values.item(chosen, first), where)] if rest else inside
    )


def _object(chosen: Together, document: SchemaDocument, values: Conjunctions, place: str) -> _Form:
    wanted = {name: document.place(part, "required") for part in chosen for name in required(part)}
    num_members, where = _most("minProperties", "maxProperties", chosen, document, place, at_least=len(wanted))
    others = num_members - len(wanted)
    written = sum(len(json.dumps(name, ensure_ascii=False).encode()) + 1 for name in wanted)
    inside = [(1, values.member(chosen, name), f"{why}: {name!r}") for name, why in wanted.items()]
    return _Form(2 + written + max(0, num_members - 1) + others * len('"":0'), where, inside)


def _most(
    least: str, most: str, chosen: Together, document: SchemaDocument, place: str, at_least: int = 0
) -> tuple[float, str]:
    """The largest of the parts' lower bounds, and where it stands; infinite: above an upper one."""
    found = [(_count(part, least), document.place(part, least)) for part in chosen if _count(part, least)]
    number, where = max([(at_least, place), *found])
    above = [
        document.place(part, most) for part in chosen if number > (_count(part, most) if most in part else math.inf)
    ]
    return (math.inf, above[0]) if above else (number, where)


def _count(part: Part, keyword: str) -> int:
    found = part.get(keyword)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _may_be(part: Part, kind: str) -> bool:
    """What is no type is for others to complain about."""
    types = part.get("type", _TYPES)
    types = types if isinstance(types, list | tuple) else [types]
    return kind in types or (kind == "integer" and "number" in types) or not set(map(str, types)) & set(_TYPES)


def _constant(part: Part) -> str:
    return "const" if "const" in part else "enum"


def _shortest_constant(part: Part) -> float:
    constants = [part["const"]] if "const" in part else part["enum"]
    texts = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in constants)
    return min((len(text.encode()) for text in texts), default=math.inf)
