"""The distributions of this repository: folder, name, package, and what they say of themselves."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("protos", "mesh", "control", "tokenizer-svc", "worker", "cache-svc", "gateway", "cli")
SERVICES = ("control", "tokenizer-svc", "worker", "cache-svc", "gateway")


@dataclass(frozen=True)
class Distribution:
    """One room as a distribution."""

    room: str

    @property
    def folder(self) -> Path:
        """Its folder in the repository."""
        return ROOT / self.room

    @property
    def packages(self) -> tuple[str, ...]:
        """The top-level packages that it brings."""
        return ("serin", "xds") if self.room == "protos" else (f"serin_{self.room.replace('-', '_')}",)

    @property
    def project(self) -> dict[str, Any]:
        """The `[project]` table of its pyproject.toml."""
        table: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return table

    def imports(self) -> Iterator[str]:
        """Top-level modules that its sources import, its own and the standard library's included."""
        for file in sorted((self.folder / "src").rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    yield node.module
