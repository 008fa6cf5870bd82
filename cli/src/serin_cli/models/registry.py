"""The models that were pushed on this machine, by name and version. A version never changes.

Files are kept once by content; a version is a folder of links to them that services load like any model folder.
The manifest comes last and in one step, so that a push is there whole or not at all. Pushes wait for each other;
looking waits for nobody. Knows nothing about meshes.
"""

import contextlib
import fcntl
import getpass
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serin_mesh.identity import ArtifactUnreadable, digest_json, vocabulary_digest
from serin_worker.errors import ModelRefused as CheckpointRefused
from serin_worker.model.checkpoint import Checkpoint, inspect

from serin_cli.errors import CliError, ModelRefused
from serin_cli.models.blobs import Blobs, Content, content_of, sync_folder
from serin_cli.models.intact import Intact
from serin_cli.models.manifest import Manifest, ModelFile, manifest_from
from serin_cli.models.reference import Reference
from serin_cli.state_dir import StateDir, write_private

KEPT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "[0-9]_*/config.json")
"""Weights as safetensors and what describes them, an embedding model's pooling too; never pickles or code."""

LINKED_FROM_BYTES = 1024 * 1024

Fraction = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


class VersionTaken(CliError):
    """A version of that name is there and holds something else."""


@dataclass(frozen=True)
class Push:
    """What a push came to.

    Attributes:
        is_new: False: the same content was there already.
        mended: files of it that were damaged, and are as they were pushed again.
    """

    manifest: Manifest
    is_new: bool
    mended: tuple[str, ...] = ()


class ModelRegistry:
    """The registry in a state directory."""

    def __init__(self, state: StateDir) -> None:
        root = state.models
        self._root = root
        self._blobs = Blobs(root / "blobs")
        self._manifests = root / "manifests"
        self._folders = root / "folders"
        self._memories = root / "verified"

    def versions(self, name: str | None = None) -> list[Manifest]:
        """All versions, or those of one model, by name and then as they were pushed."""
        found = (self._read(path) for path in self._manifests.glob(f"{name or '*'}/*.json"))
        return sorted(found, key=lambda manifest: (manifest.name, manifest.pushed_at, manifest.version))

    def get(self, reference: Reference) -> Manifest:
        """One version.

        Raises:
            ModelRefused: there is none; names those there are.
        """
        path = self._manifest_file(reference)
        if path.is_file():
            return self._read(path)
        versions = ", ".join(manifest.version for manifest in self.versions(reference.name))
        there = f"versions of {reference.name}: {versions}" if versions else f"no version of {reference.name} is there"
        raise ModelRefused(reference.path, f"not in the registry ({there}); `serin model push` puts one there")

    def has(self, reference: Reference) -> bool:
        """Whether a version was pushed."""
        return self._manifest_file(reference).is_file()

    def folder(self, reference: Reference) -> Path:
        """The folder that services load, once it is seen to hold what was pushed.

        Raises:
            ModelRefused: there is no such version, or a file is not what it was; names the file.
        """
        manifest = self.get(reference)
        for name, wrong in self._intact(reference).damaged({file.name: file for file in manifest.files}):
            remedy = "push the same content again to mend it, or other content as another version"
            raise ModelRefused(reference.path, f"{self._folder(reference) / name} {wrong}; {remedy}")
        return self._folder(reference)

    def push(self, reference: Reference, folder: Path, source: str, progress: Fraction = lambda _: None) -> Push:
        """Keep a folder's files as a version. The same content again changes nothing, and mends what was damaged.

        Raises:
            ModelRefused: the folder holds no model that would be served.
            VersionTaken: the version holds other content.
            OSError: a file cannot be read, or there is no room.
        """
        checkpoint, vocabulary = _inspected(folder, source)
        paths = sorted({path for pattern in KEPT_FILES for path in folder.glob(pattern) if path.is_file()})
        step = _reporter(sum(path.stat().st_size for path in paths), progress)
        with self._alone():
            if self.has(reference):
                manifest = self.get(reference)
                contents = {path.relative_to(folder).as_posix(): content_of(path, step) for path in paths}
                self._refuse_other(manifest, contents)
                return Push(manifest, is_new=False, mended=self._mend(manifest, folder))
            contents = {path.relative_to(folder).as_posix(): self._blobs.take(path, step) for path in paths}
            manifest = _described(reference, contents, checkpoint, vocabulary, source)
            self._publish(manifest)
            return Push(manifest, is_new=True)

    def _refuse_other(self, manifest: Manifest, contents: dict[str, Content]) -> None:
        kept, given = manifest.contents, {name: content.digest for name, content in contents.items()}
        other = sorted(name for name in kept.keys() | given.keys() if kept.get(name) != given.get(name))
        if other:
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            raise VersionTaken(
                f"{manifest.reference} is there already and holds other content ({other[0]}{more}), pushed "
                f"{manifest.pushed_at} by {manifest.pushed_by}; a version never changes: push this as another one"
            )

    def _mend(self, manifest: Manifest, source: Path) -> tuple[str, ...]:
        """Replace what is damaged by the same content as it was pushed again; the names of what was."""
        files, folder = {file.name: file for file in manifest.files}, self._folder(manifest.reference)
        damaged = tuple(name for name, _ in self._intact(manifest.reference).damaged(files))
        for name in damaged:
            if name not in files:
                _remove(folder / name)
                continue
            self._blobs.take(source / name, lambda _: None)
            place = folder / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = place.with_name(f".{place.name}.mending")
            scratch.unlink(missing_ok=True)
            _put(self._blobs.place(files[name].digest), scratch)
            scratch.replace(place)
        return damaged

    def _publish(self, manifest: Manifest) -> None:
        """Make the folder, then say that it is there."""
        folder = self._folder(manifest.reference)
        scratch = folder.with_name(f".{folder.name}.new")
        for leftover in (scratch, folder):  # of a push that broke off before its manifest
            shutil.rmtree(leftover, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
        for file in manifest.files:
            place = scratch / file.name
            place.parent.mkdir(mode=0o700, exist_ok=True)
            _put(self._blobs.place(file.digest), place)
        for one in {(scratch / file.name).parent for file in manifest.files} | {scratch}:
            sync_folder(one)
        scratch.replace(folder)
        sync_folder(folder.parent)
        path = self._manifest_file(manifest.reference)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, manifest.as_json())
        sync_folder(path.parent)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._blobs.sweep()
            yield
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> Manifest:
        try:
            return manifest_from(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reference = Reference(path.parent.name, path.stem)
            raise ModelRefused(
                reference.path, f"{path} cannot be used ({error}); remove it and push the version again"
            ) from error

    def _intact(self, reference: Reference) -> Intact:
        return Intact(self._folder(reference), self._memories / reference.name / f"{reference.version}.json")

    def _manifest_file(self, reference: Reference) -> Path:
        return self._manifests / reference.name / f"{reference.version}.json"

    def _folder(self, reference: Reference) -> Path:
        return self._folders / reference.name / reference.version


def _inspected(folder: Path, source: str) -> tuple[Checkpoint, str]:
    """A folder as the worker would read it, and its vocabulary digest."""
    try:
        return inspect(folder), vocabulary_digest(folder)
    except (CheckpointRefused, ArtifactUnreadable) as error:
        raise ModelRefused(source, str(error)) from error


def _described(
    reference: Reference, contents: dict[str, Content], checkpoint: Checkpoint, vocabulary: str, source: str
) -> Manifest:
    weighed = ("config.json", *(path.name for path in checkpoint.files))
    return Manifest(
        name=reference.name,
        version=reference.version,
        files=tuple(ModelFile(name, content.num_bytes, content.digest) for name, content in contents.items()),
        source=source,
        pushed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pushed_by=f"{_user()}@{socket.gethostname()}",
        vocabulary=vocabulary,
        weights=digest_json({name: contents[name].identity for name in weighed}),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as containers have them
        return f"uid-{os.getuid()}"


def _put(blob: Path, place: Path) -> None:
    """A link where that saves room; a small file is a copy, so that whoever edits it harms one version alone."""
    if blob.stat().st_size >= LINKED_FROM_BYTES:
        with contextlib.suppress(OSError):  # a file system without hard links
            place.hardlink_to(blob)
            return
    with blob.open("rb") as reading, place.open("wb") as writing:
        shutil.copyfileobj(reading, writing)
        writing.flush()
        os.fsync(writing.fileno())
    place.chmod(0o444)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reporter(total: int, progress: Fraction) -> Callable[[int], None]:
    done = 0

    def step(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(done / max(1, total))

    return step
