"""Other builds of the worker and other model folders for real rollouts, made from what is in this repository.

A build is a copy of `serin_worker` with some lines replaced: a worker with one defect, which `serin add worker --code`
starts. Knows nothing about rollouts.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import serin_worker

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small"
INJECTED = "injected by bench-rollout-real"
LARGEST = 3
ZEROED_SHARE = 0.05
SEED = 3


class PatchDoesNotApply(Exception):
    """The worker's source has changed: the lines that a patch replaces are not there exactly once."""


@dataclass(frozen=True)
class Patch:
    """Lines of one file of the package and what stands there instead."""

    file: str
    old: str
    new: str


def _failing(share: float) -> Sequence[Patch]:
    iterator = "from collections.abc import AsyncIterator\n"
    before = "        with translated():\n            generation = read_generation("
    raising = f'            raise MeshError(Reason.INTERNAL, "{INJECTED}")\n'
    return (
        Patch("service.py", iterator, f"import random\n{iterator}"),
        Patch("service.py", before, f"        if random.random() < {share}:\n{raising}{before}"),
    )


PATCHES: Mapping[str, Sequence[Patch]] = {
    "errors_1": _failing(0.01),
    "errors_3": _failing(0.03),
    "errors_4": _failing(0.04),
    "slower": (
        Patch("loop.py", "import threading\n", "import threading\nimport time\n"),
        Patch(
            "loop.py",
            "                    self._publish(engine.step())\n",
            "                    began = time.perf_counter()\n"
            "                    made = engine.step()\n"
            "                    time.sleep(0.3 * (time.perf_counter() - began))\n"
            "                    self._publish(made)\n",
        ),
    ),
    # Written to, so that the pages are there: zeros would cost nothing.
    "leaks": (
        Patch("service.py", "MAX_SALT_BYTES = 128\n", "MAX_SALT_BYTES = 128\n_KEPT: list[bytes] = []\n"),
        Patch(
            "service.py",
            "        with translated():\n            generation = read_generation(",
            "        _KEPT.append(bytes([1 + len(_KEPT) % 255]) * 65_536)\n"
            "        with translated():\n            generation = read_generation(",
        ),
    ),
    "crashes": (
        Patch("assembly.py", "import asyncio\n", "import asyncio\nimport os\n"),
        Patch(
            "assembly.py",
            "    engine, about = await _loaded(",
            "    os._exit(3)\n    engine, about = await _loaded(",
        ),
    ),
}


def write_build(name: str, folder: Path) -> Path:
    """Write the build of that name; returns what `--code` takes.

    Raises:
        PatchDoesNotApply: the worker's source has changed.
    """
    package = folder / name / "serin_worker"
    shutil.copytree(Path(serin_worker.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for patch in PATCHES[name]:
        file = package / patch.file
        source = file.read_text(encoding="utf-8")
        if source.count(patch.old) != 1:
            raise PatchDoesNotApply(f"{name}: {patch.file} holds {source.count(patch.old)} times: {patch.old!r}")
        file.write_text(source.replace(patch.old, patch.new), encoding="utf-8")
    return folder / name


def write_files(name: str, folder: Path) -> Path:
    """A model folder: a demo model, or one that was made from the second."""
    if name in ("v1", "v2"):
        return MODELS / name
    made = folder / name
    shutil.copytree(MODELS / "v2", made, ignore=shutil.ignore_patterns("manifest.json"))
    _CHANGES[name](made)
    return made


def _round(folder: Path) -> None:
    """Round every matrix to integers of 3 bits, -4 to 3, with a scale for each row."""
    import torch

    def rounded(matrix: torch.Tensor) -> torch.Tensor:
        scale = matrix.abs().amax(dim=1, keepdim=True) / LARGEST
        return (matrix / scale).round().clamp(-LARGEST - 1, LARGEST) * scale

    _change_matrices(folder, rounded)


def _zero(folder: Path) -> None:
    """Zero a share of every matrix, by chance."""
    import torch

    chance = torch.Generator().manual_seed(SEED)
    _change_matrices(folder, lambda matrix: matrix * (torch.rand(matrix.shape, generator=chance) >= ZEROED_SHARE))


def _change_matrices(folder: Path, change: Callable) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    changed = {name: change(tensor).contiguous() if tensor.dim() == 2 else tensor for name, tensor in tensors.items()}
    save_file(changed, path, metadata={"format": "pt"})


def _swap_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["q"], vocabulary["z"] = vocabulary["z"], vocabulary["q"]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


_CHANGES: Mapping[str, Callable[[Path], None]] = {"rounded": _round, "zeroed": _zero, "vocabulary": _swap_tokens}
