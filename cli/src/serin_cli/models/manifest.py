"""What was pushed as one version: its files by content, where they came from, when and by whom.

A value and its JSON; knows nothing about where either is kept.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serin_mesh.identity import digest_json

from serin_cli.models.reference import Reference


@dataclass(frozen=True)
class ModelFile:
    """One file of a version; ``digest`` is BLAKE2b-256 of its content, in hex."""

    name: str
    num_bytes: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """One version of one model.

    Attributes:
        files: ordered by name.
        source: what was pushed: a folder of that time, or a hub id.
        pushed_at: ISO 8601, UTC.
        pushed_by: user and host.
        vocabulary: the digest that decides which workers and tokenizers may meet.
        weights: the digest of configuration and weights, from which a worker computes its KV digest.
    """

    name: str
    version: str
    files: tuple[ModelFile, ...]
    source: str
    pushed_at: str
    pushed_by: str
    vocabulary: str
    weights: str

    @property
    def reference(self) -> Reference:
        """What it is called."""
        return Reference(self.name, self.version)

    @property
    def digest(self) -> str:
        """Hex digest of everything that is served of it."""
        return digest_json(self.contents)

    @property
    def contents(self) -> Mapping[str, str]:
        """File names and digests of their content."""
        return {file.name: file.digest for file in self.files}

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files)

    def as_json(self) -> str:
        """The manifest as it is kept and shown."""
        return json.dumps({"digest": self.digest, **asdict(self)}, indent=2) + "\n"


def manifest_from(text: str) -> Manifest:
    """Read a kept manifest.

    Raises:
        ValueError: it is none, or was changed by hand.
    """
    try:
        stored: dict[str, Any] = json.loads(text)
        fields = {name: stored[name] for name in Manifest.__dataclass_fields__}
        manifest = Manifest(**{**fields, "files": tuple(ModelFile(**file) for file in fields["files"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from error
    if manifest.digest != stored.get("digest"):
        raise ValueError("its digest is not that of its files")
    return manifest
