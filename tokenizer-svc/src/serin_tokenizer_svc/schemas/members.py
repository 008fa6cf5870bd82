r"""Names of members that a schema leaves open: written without escapes, so that a declared one cannot be met twice.

The matcher lets an open name be spelled with escapes (`\u0074o` for `to`), which every reader takes for the declared
one: the value behind it would be the one that counts, and follow nothing. A name that matches a pattern it spells in
one way. So what is open becomes a pattern. Knows nothing about values.
"""

from collections.abc import Iterator
from typing import Any

from serin_tokenizer_svc.schemas.conjunctions import Conjunctions, Part, names, required
from serin_tokenizer_svc.schemas.document import SchemaDocument

_CONTROL = r"\x00-\x1f\x7f"
"""Characters that no open name has: the matcher knows several spellings of them."""
_ANY = rf"[^{_CONTROL}]*"
_MAX_PATTERN_CHARS = 32 << 10


def keep_members(document: SchemaDocument, values: Conjunctions) -> Iterator[tuple[str, str]]:
    """Make open names patterns; tell which members are declared so that it cannot be done, and leave those."""
    left: set[int] = set()
    for parts in _mixed(values):
        left |= {id(part) for part in parts}
        yield (
            document.place(parts[-1]),
            "members are declared by several schemas for one object, not all of which leave other members open; that "
            "cannot be enforced: declare them in one",
        )
    for _, part in document.parts():
        if id(part) not in left:
            fault = _close(part)
            if fault:
                yield document.place(part, "patternProperties"), fault


def keep_count(part: Part) -> str:
    """Why `minProperties` is left out; empty: it is kept, or holds anyway. Readers count a repeated name once."""
    least, num_required = part.get("minProperties"), len(set(required(part)))
    if not isinstance(least, int) or (_kind(part) == "closed" and least > num_required):
        return ""
    is_one_more = least == num_required + 1 and set(names(part)) <= set(required(part))
    if is_one_more:
        return ""
    del part["minProperties"]
    return "cannot be enforced where `additionalProperties` is open" if least > num_required else ""


def _mixed(values: Conjunctions) -> Iterator[list[Part]]:
    """Parts that declare members of one object, some of them open and others not."""
    for choices in values.choices.values():
        for chosen in choices:
            parts = [part for part in chosen if _declares(part)]
            kinds = {_kind(part) for part in parts}
            if len(parts) > 1 and kinds not in ({"open"}, {"closed"}):
                yield parts


def _declares(part: Part) -> bool:
    if any(isinstance(one, dict) for one in _constants(part)) or names(part) or part.get("patternProperties"):
        return True
    return _kind(part) != "open"


def _kind(part: Part) -> str:
    """What members may there be that it does not name."""
    if part.get("patternProperties"):
        return "patterns"
    if part.get("additionalProperties") is False or any(isinstance(one, dict) for one in _constants(part)):
        return "closed"
    return "open" if part.get("additionalProperties", True) in (True, {}) else "typed"


def _constants(part: Part) -> list[Any]:
    listed = part.get("enum")
    return [*([part["const"]] if "const" in part else []), *(listed if isinstance(listed, list) else [])]


def _close(part: Part) -> str:
    """Have a pattern for what is open; why not, if it cannot be."""
    declared, kind = names(part), _kind(part)
    if kind == "patterns":
        if part.get("additionalProperties") is not False:
            return "patterns of names cannot be enforced beside other names; say additionalProperties: false"
        if any(not char.isprintable() for name in declared for char in name):
            return "patterns of names cannot be enforced beside names with control characters"
        return ""
    if not declared or kind == "closed":
        return ""
    pattern = f"^{_ANY}$" if kind == "open" else _other_names(declared)
    if len(pattern) > _MAX_PATTERN_CHARS:
        return "so many names cannot be enforced beside a schema for all others; say additionalProperties: false"
    part["patternProperties"] = {pattern: part.pop("additionalProperties", True)}
    part["additionalProperties"] = False
    return ""


def _other_names(declared: list[str]) -> str:
    """A regular expression for every open name but these: it leaves their common beginnings at some character."""
    following: dict[str, set[str]] = {"": set()}
    for name in declared:
        for at, char in enumerate(name):
            following.setdefault(name[:at], set()).add(char)
        following.setdefault(name, set())
    ways = []
    for beginning, chars in following.items():
        begun = "".join(map(_literal, beginning))
        ways.append(f"{begun}[^{''.join(map(_literal, sorted(chars)))}{_CONTROL}]{_ANY}")
        if beginning not in declared:
            ways.append(begun)
    return f"^(?:{'|'.join(ways)})$"


def _literal(char: str) -> str:
    return char if char.isalnum() else f"\\x{{{ord(char):x}}}"
