"""The name of a pushed version where a model folder may stand: ``registry:small:v2``.

Knows nothing about what is kept under it.
"""

import re
from dataclasses import dataclass

from serin_cli.errors import ModelRefused

SCHEME = "registry:"
NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Reference:
    """One version of one model in the registry."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def path(self) -> str:
        """How a `serin.yaml` names it."""
        return f"{SCHEME}{self}"


def parse_reference(path: str) -> Reference | None:
    """The version that a path names; None: it is a path of another kind.

    Raises:
        ModelRefused: it begins like a reference and is none.
    """
    if not path.startswith(SCHEME):
        return None
    name, _, version = path.removeprefix(SCHEME).partition(":")
    if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
        raise ModelRefused(path, "accepted: registry:NAME:VERSION, as `serin model list` shows them")
    return Reference(name, version)
