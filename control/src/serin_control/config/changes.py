"""What differs between two declarations, a line each, for people."""

from collections.abc import Iterator
from typing import Any

from serin_control.config.declaration import MeshConfig


def diff(old: MeshConfig | None, new: MeshConfig) -> list[str]:
    """Lines such as ``models.small.workers: 1 -> 2``; empty when the two mean the same.

    ``old`` is None where nothing was declared before. Defaults that nobody wrote are not listed.
    """
    before = dict(_leaves(_plain(old), ())) if old is not None else {}
    after = dict(_leaves(_plain(new), ()))
    lines = []
    for key in [*after, *(key for key in before if key not in after)]:
        if key not in before:
            lines.append(f"+ {key}: {_shown(after[key])}")
        elif key not in after:
            lines.append(f"- {key}: {_shown(before[key])}")
        elif before[key] != after[key]:
            lines.append(f"{key}: {_shown(before[key])} -> {_shown(after[key])}")
    return lines


def _plain(config: MeshConfig) -> dict[str, Any]:
    return config.model_dump(exclude_defaults=True)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield ".".join(path), value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
