"""From text to a checked declaration, or to a list of everything that is wrong with it, with lines.

Knows nothing about where a configuration is kept or who wants it.
"""

import difflib
import functools
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serin_control.config.accepted import describe, keys_at, schema_at
from serin_control.config.declaration import MeshConfig
from serin_control.config.problems import ConfigInvalid, Problem
from serin_control.config.rules import broken_rules
from serin_control.config.schema import json_schema
from serin_control.config.yaml_lines import KeyPath, Lines, YamlRefused, read_yaml


def load_config(path: Path) -> MeshConfig:
    """Declaration in a file.

    Raises:
        ConfigInvalid: the file cannot be read, or anything in it is wrong.
    """
    return parse_config(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Text of a file.

    Raises:
        ConfigInvalid: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        wrong = f"cannot be read: {error.strerror or error}"
        raise ConfigInvalid([Problem(str(path), 0, "", wrong, "a readable file")]) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid([Problem(str(path), 0, "", f"not UTF-8: {error.reason}", "text in UTF-8")]) from error


def parse_config(text: str, source: str = "serin.yaml") -> MeshConfig:
    """Declaration in a text.

    Args:
        text: YAML.
        source: what to call the text in messages.

    Raises:
        ConfigInvalid: anything in it is wrong; every problem is listed, nothing is taken over.
    """
    try:
        values, lines = read_yaml(text)
    except YamlRefused as refused:
        problem = Problem(source, refused.line, _dotted(refused.path), refused.wrong, refused.accepted)
        raise ConfigInvalid([problem]) from refused
    if not isinstance(values, dict):
        wrong = "empty" if values is None else f"{type(values).__name__} instead of keys"
        raise ConfigInvalid([Problem(source, 0, "", wrong, describe(_schema()))])
    try:
        config = MeshConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigInvalid([_problem(details, source, lines) for details in error.errors()]) from error
    broken = [Problem(source, lines.at(b.path), _dotted(b.path), b.wrong, b.accepted) for b in broken_rules(config)]
    if broken:
        raise ConfigInvalid(broken)
    return config


_schema = functools.cache(json_schema)
_NAMED: dict[KeyPath, str] = {
    ("models",): "models",
    ("token_issuers",): "token issuers",
    ("cascades",): "cascades",
    ("tenants",): "organizations",
    ("guards", "policies"): "policies",
    ("guards", "organizations"): "organizations",
    ("guards", "projects"): "projects",
}
_SHORT, _VERSION = "1 to 64 of a-z 0-9 . _ -", "1 to 64 of A-Z a-z 0-9 . _ -"


def _problem(details: ErrorDetails, source: str, lines: Lines) -> Problem:
    path: KeyPath = tuple(step for step in details["loc"] if step != "[key]")
    root = _schema()
    key = _dotted(path)
    line = lines.at(path)
    match details["type"]:
        case "extra_forbidden":
            known = keys_at(root, path[:-1])
            near = difflib.get_close_matches(str(path[-1]), known, n=1)
            wrong = "unknown key" + (f" (did you mean {near[0]!r}?)" if near else "")
            return Problem(source, line, key, wrong, ", ".join(known))
        case "missing":
            return Problem(source, line, key, "missing", describe(schema_at(root, path)))
    if "[key]" in details["loc"]:
        return Problem(source, line, key, "not a name", _name_rule(path))
    return Problem(source, line, key, _wrong(details), describe(schema_at(root, path)))


def _name_rule(path: KeyPath) -> str:
    if path[-2:-1] == ("aliases",):
        return "names of aliases: 1 to 128 of A-Z a-z 0-9 . _ : / -"
    if path[:-1] == ("guards", "keys"):
        return "public names of keys: key_..., as `serin key list` shows"
    if path[-2:-1] == ("projects",):
        return f"names of projects: {_SHORT}"
    return f"names of {_NAMED[path[:-1]]}: {_SHORT}" if path[:-1] in _NAMED else f"names of versions: {_VERSION}"


def _wrong(details: ErrorDetails) -> str:
    value = details["input"]
    if value is None:
        return "no value"
    if isinstance(value, dict | list):
        return f"{'a mapping' if isinstance(value, dict) else 'a list'}{'' if value else ' without entries'}"
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return f"{shown} is not accepted"


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
