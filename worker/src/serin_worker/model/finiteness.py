"""Which tensor of a checkpoint holds NaN or infinity, looked for when what a model computes are not numbers.

Knows nothing about models.
"""

import torch
from safetensors import safe_open

from serin_worker.errors import ModelRefused
from serin_worker.model.checkpoint import Checkpoint


def explain(checkpoint: Checkpoint, precision: str, what: str = "logits") -> ModelRefused:
    """Why what a model computes is not finite: a tensor that is not, or a precision that its numbers do not fit."""
    for path in checkpoint.files:
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                    return ModelRefused(f"tensor {name!r} holds NaN or infinity", str(path))
    return ModelRefused(
        f"its {what} in {precision} are NaN or infinite, and all its weights are finite; try another precision",
        str(checkpoint.folder),
    )
