"""Reads a compose file the way Docker Compose does, as far as ours goes. Knows nothing about running it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


@dataclass(frozen=True)
class ComposeService:
    """One service: its image or build, command, environment, health check and what it waits for.

    Attributes:
        depends_on: condition by service, for example ``service_healthy``.
        mounts: target path -> source: a volume's name, or a host path if it begins with ``.`` or ``/``.
        configs: target path -> content.
        health: the health check's command, without ``CMD``.
    """

    name: str
    image: str
    build: Mapping[str, Any] | None
    command: Sequence[str]
    environment: Mapping[str, str]
    depends_on: Mapping[str, str]
    mounts: Mapping[str, str]
    configs: Mapping[str, str]
    health: Sequence[str]
    profiles: Sequence[str]
    raw: Mapping[str, Any]


def read_compose(path: Path, variables: Mapping[str, str] = os.environ) -> dict[str, ComposeService]:
    """The services of a compose file by name, variables filled in."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document = _fill(document, variables)
    contents = {name: config["content"] for name, config in document.get("configs", {}).items() if "content" in config}
    return {name: _service(name, raw, contents) for name, raw in document["services"].items()}


def start_order(services: Mapping[str, ComposeService]) -> list[str]:
    """Names of the services, each after those it depends on."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"depends_on goes in a circle: {' -> '.join((*path, name))}")
        for dependency in services[name].depends_on:
            visit(dependency, (*path, name))
        if name not in order:
            order.append(name)

    for name in services:
        visit(name, ())
    return order


def _service(name: str, raw: Mapping[str, Any], contents: Mapping[str, str]) -> ComposeService:
    depends = raw.get("depends_on", {})
    return ComposeService(
        name=name,
        image=raw.get("image", ""),
        build=raw.get("build"),
        command=raw.get("command", []),
        environment={key: str(value) for key, value in raw.get("environment", {}).items()},
        depends_on={other: entry["condition"] for other, entry in depends.items()},
        mounts=dict(_mount(entry) for entry in raw.get("volumes", [])),
        configs={entry["target"]: contents[entry["source"]] for entry in raw.get("configs", [])},
        health=raw.get("healthcheck", {}).get("test", ["CMD"])[1:],
        profiles=raw.get("profiles", []),
        raw=raw,
    )


def _mount(entry: str) -> tuple[str, str]:
    source, target = entry.removesuffix(":ro").split(":", 1)
    return target, source


def _fill(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _replacement(match, variables), value)
    return value


def _replacement(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match["name"] is None:
        return "$"
    return variables.get(match["name"]) or match["default"] or ""
