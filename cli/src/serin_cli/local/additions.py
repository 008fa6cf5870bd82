"""Versions that somebody added beside the declared ones, or took away, on this machine, to rehearse a release.

They last until they are taken back, whatever is declared in between; traffic is the control plane's business. Knows one
file and the values in it, nothing about processes.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from serin_cli.errors import StartRefused
from serin_cli.state_dir import write_private

MODEL_SERVICES = ("worker", "tokenizer")  # they serve one model; the others serve all
SERVICES = (*MODEL_SERVICES, "cache", "gateway")


@dataclass(frozen=True, order=True)
class Which:
    """A version of a service; ``model`` is empty where a service serves all models."""

    service: str
    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.service} {self.version} of {self.model}" if self.model else f"{self.service} {self.version}"

    @property
    def prefix(self) -> str:
        """What the names of its processes begin with."""
        return ".".join(part for part in (self.service, self.model, self.version) if part)

    @property
    def arguments(self) -> str:
        """It as arguments of `serin add` and `serin remove`, for a shell."""
        model = f" --model {quote(self.model)}" if self.model else ""
        return f"{self.service}{model} --version {quote(self.version)}"


@dataclass(frozen=True)
class Addition:
    """A version beside the declared ones.

    Attributes:
        path: model folder, hub id or pushed version, for services of a model; else empty.
        code: folder or virtual environment with another build of the service; empty: this installation.
        engine: settings of a worker, by their key in `serin.yaml`, that differ from the model's.
    """

    which: Which
    path: str = ""
    num_processes: int = 1
    code: str = ""
    engine: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Additions:
    """All of them; ``withheld`` are declared versions that are not started."""

    added: tuple[Addition, ...] = ()
    withheld: frozenset[Which] = frozenset()

    def find(self, which: Which) -> Addition | None:
        """What was added as a version."""
        return next((addition for addition in self.added if addition.which == which), None)

    def with_added(self, addition: Addition) -> "Additions":
        """With a version added, or changed."""
        rest = tuple(other for other in self.added if other.which != addition.which)
        return replace(self, added=(*rest, addition), withheld=self.withheld - {addition.which})

    def without(self, which: Which) -> "Additions":
        """Without an added version."""
        return replace(self, added=tuple(other for other in self.added if other.which != which))

    def withholding(self, which: Which, withheld: bool) -> "Additions":
        """With a declared version kept from starting, or no longer."""
        return replace(self, withheld=self.withheld | {which} if withheld else self.withheld - {which})


class AdditionsFile:
    """The additions of one state directory. Changes wait for each other; reading waits for nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Additions:
        """What was added; nothing where there is no file.

        Raises:
            StartRefused: the file cannot be used.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Additions()
        except OSError as error:
            raise StartRefused(f"{self._path}: {error.strerror}; make it readable, or remove it") from error
        try:
            return _additions(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StartRefused(
                f"{self._path}: cannot be used ({error!r}); remove it and `serin add` again what is missed"
            ) from error

    def change(self, change: Callable[[Additions], Additions]) -> Additions:
        """Replace what is kept by what ``change`` makes of it; what it raises changes nothing."""
        with self._alone():
            before = self.read()
            after = change(before)
            if after != before:
                write_private(self._path, json.dumps(_document(after), indent=2) + "\n")
        return after

    def stamp(self) -> tuple[int, int] | None:
        """Differs whenever the file was changed; None: there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _document(additions: Additions) -> dict[str, Any]:
    return {
        "added": [asdict(addition) for addition in additions.added],
        "withheld": [asdict(which) for which in sorted(additions.withheld)],
    }


def _additions(document: dict[str, Any]) -> Additions:
    added = (Addition(**{**addition, "which": Which(**addition["which"])}) for addition in document["added"])
    return Additions(tuple(added), frozenset(Which(**which) for which in document["withheld"]))
