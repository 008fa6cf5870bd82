"""Model folders: found on disk, in the registry or on the hub, and looked over before a process is started for them.

What may be served at all is the worker's to say: its inspection reads headers only, and is asked here so that a bad
folder is refused before anything is started, or stopped, for it.
"""

import re
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
from serin_worker.errors import ModelRefused as CheckpointRefused
from serin_worker.model.checkpoint import inspect

from serin_cli.errors import ModelRefused, StartRefused
from serin_cli.models.reference import parse_reference
from serin_cli.models.registry import KEPT_FILES, ModelRegistry

HUB_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
SPARE_BYTES = 300 * 1024 * 1024  # a process with torch, before it has loaded anything


class ModelFolders:
    """Finds the folder of each path once and remembers it; ``registry`` is where pushed versions are."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._found: dict[str, Path] = {}
        self._checking = threading.Lock()  # what one has read, the others believe

    def fetch(self, path: str) -> Path:
        """The folder of a model; blocks while the hub is asked.

        Raises:
            ModelRefused: there is no such folder, pushed version or hub id, or it holds no model.
            StartRefused: the hub does not answer.
        """
        if path not in self._found:
            folder = check_path(path, self._registry)
            if folder is None:
                folder = _from_hub(path)
                _check(path, folder)
            self._found[path] = folder.absolute()
        return self._found[path]

    def check(self, path: str) -> None:
        """See that a pushed version still holds what was pushed, whenever a process is to read it.

        Raises:
            ModelRefused: it does not; names the file and what mends it.
        """
        reference = parse_reference(path)
        if reference is not None:
            with self._checking:
                self._registry.folder(reference)

    def folder(self, path: str) -> Path:
        """The folder of a path that was fetched."""
        return self._found[path]


def check_path(path: str, registry: ModelRegistry) -> Path | None:
    """Look at a path as far as that goes without asking the hub; returns its folder, or None for a hub id.

    Raises:
        ModelRefused: it is neither a folder with a model, nor a pushed version, nor a hub id.
    """
    reference = parse_reference(path)
    if reference is not None:
        return registry.folder(reference)
    folder = Path(path).expanduser()
    if path.strip() and folder.is_dir():
        _check(path, folder)
        return folder
    if not HUB_ID.match(path):
        accepted = "a model folder, or a hub id such as org/name, or registry:NAME:VERSION"
        raise ModelRefused(path, f"no such folder; accepted: {accepted}")
    return None


def check_memory(folders: Iterable[Path]) -> None:
    """Refuse a set of workers whose weights alone cannot fit; one entry for each worker.

    Raises:
        StartRefused: with both figures.
    """
    sizes = [weight_bytes(folder) + SPARE_BYTES for folder in folders]
    needed, available = sum(sizes), psutil.virtual_memory().available
    if needed > available:
        raise StartRefused(
            f"not enough memory: {len(sizes)} worker(s) need at least {_gib(needed)} for their weights, "
            f"{_gib(available)} are free; take a smaller model, fewer --workers, or stop something else"
        )


def weight_bytes(folder: Path) -> int:
    """Bytes of a model's weights on disk."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _check(path: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelRefused(path, f"{folder} holds no config.json; accepted: a folder that transformers saved")
    if not any(folder.glob("*.safetensors")):
        pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(pattern)]
        found = f"only {pickled[0]}, which is a pickle" if pickled else "no weights"
        raise ModelRefused(path, f"{folder} holds {found}; accepted: weights as .safetensors")
    try:
        inspect(folder)
    except CheckpointRefused as error:
        raise ModelRefused(path, str(error)) from error


def _from_hub(path: str) -> Path:
    from huggingface_hub import snapshot_download  # loads a second of code that a local folder does not need
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(path, allow_patterns=list(KEPT_FILES)))
    except RepositoryNotFoundError as error:
        wrong = "neither a folder here nor a model on the hub; accepted: an existing one, mind the spelling"
        raise ModelRefused(path, wrong) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StartRefused(
            f"model {path!r}: the hub did not give it ({reason}); give a local folder instead"
        ) from error


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
