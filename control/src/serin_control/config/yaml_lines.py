"""YAML text to plain values, remembering the line of every key.

Only plain data: no tags that build objects, no anchors or aliases (so a small file cannot unfold into a large one), no
duplicate keys, bounded depth. Knows nothing about what the keys mean.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

MAX_DEPTH = 32
MAX_CHARACTERS = 1_048_576

KeyPath = tuple[str | int, ...]

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null"))


class Broken(NamedTuple):
    """A rule that does not hold: at which key, what is wrong, what is accepted."""

    path: KeyPath
    wrong: str
    accepted: str


class YamlRefused(Exception):
    """The text is no plain YAML. ``line`` counts from 1, ``path`` leads to the place."""

    def __init__(self, line: int, path: KeyPath, wrong: str, accepted: str) -> None:
        super().__init__(wrong)
        self.line, self.path, self.wrong, self.accepted = line, path, wrong, accepted


@dataclass(slots=True)
class Lines:
    """Lines of keys, from 1."""

    _by_path: dict[KeyPath, int] = field(default_factory=dict)

    def at(self, path: KeyPath) -> int:
        """Line of a key, or of the nearest key around it; 0 for the whole file."""
        while path and path not in self._by_path:
            path = path[:-1]
        return self._by_path.get(path, 0)

    def note(self, path: KeyPath, line: int) -> None:
        """Remember where a key stands."""
        self._by_path[path] = line


def read_yaml(text: str) -> tuple[object, Lines]:
    """Values of a YAML document and the lines of its keys.

    Raises:
        YamlRefused: not YAML, or more than plain data.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlRefused(0, (), f"{len(text)} characters", f"at most {MAX_CHARACTERS} characters")
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        lines = Lines()
        return (_value(loader, node, (), lines) if node is not None else None), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlRefused((mark.line + 1) if mark else 0, (), f"not YAML: {error.problem}", "YAML") from error
    except yaml.YAMLError as error:
        wrong = f"not YAML: {error}".splitlines()[0]
        raise YamlRefused(0, (), wrong, "printable text in UTF-8") from error


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases and depth while it composes, and leaves dates as text."""

    _depth = 0
    yaml_implicit_resolvers = {  # noqa: RUF012 - SafeLoader's own attribute, copied without dates and merge keys
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN_TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlRefused(line, (), f"anchor or alias {event.anchor!r}", "each value written out")
        if self._depth >= MAX_DEPTH:
            raise YamlRefused(line, (), "nested too deep", f"at most {MAX_DEPTH} levels")
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1


def _value(loader: _PlainLoader, node: yaml.Node, path: KeyPath, lines: Lines) -> object:
    if node.tag not in _PLAIN_TAGS:
        raise YamlRefused(node.start_mark.line + 1, path, f"tag {node.tag!r}", "plain data without tags")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines.note((*path, index), item.start_mark.line + 1)
            items.append(_value(loader, item, (*path, index), lines))
        return items
    return _scalar(loader, node, path)


def _scalar(loader: _PlainLoader, node: yaml.Node, path: KeyPath) -> object:
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise YamlRefused(node.start_mark.line + 1, path, str(error), "quoted text, or a valid number") from error


def _mapping(loader: _PlainLoader, node: yaml.MappingNode, path: KeyPath, lines: Lines) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _value(loader, key_node, path, Lines())
        if not isinstance(key, str):
            raise YamlRefused(line, path, f"key {key_node.value!r} is read as {type(key).__name__}", "text; quote it")
        if key in values:
            first = lines.at((*path, key))
            raise YamlRefused(line, (*path, key), f"duplicate key, first on line {first}", "each key once")
        lines.note((*path, key), line)
        values[key] = _value(loader, value_node, (*path, key), lines)
    return values
