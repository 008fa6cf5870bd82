"""Small modules of a model (activations, RMS norms) replaced by kernels: one pass, and the same bits in every batch.

A module is replaced only if the kernel gives what the module itself gives on random rows, on the device where it is.
Knows nothing about where in the model they are, or about how kernels compute.
"""

from collections.abc import Iterator

import torch
from transformers import activations

from serin_worker.model.small_kernels import ACTIVATIONS, DTYPES, NORM_KINDS, SmallKernels

GATED = ("gate_proj", "up_proj", "down_proj")
"""Layers of a feed-forward part; with `act_fn`, all that it has."""
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


class Gated(torch.nn.Module):
    """A feed-forward part, ``down(activation(gate(x)) * up(x))``, with activation and product in one pass."""

    def __init__(self, part: torch.nn.Module, activation: torch.nn.Module) -> None:
        super().__init__()
        for name in GATED:
            self.add_module(name, part.get_submodule(name))
        self.activation = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        gate, up, down = (self.get_submodule(name) for name in GATED)
        result: torch.Tensor = down(self.activation(gate(rows), up(rows)))
        return result


def replace_small_modules(model: torch.nn.Module, kernels: SmallKernels) -> int:
    """Replace the activations and norms that a kernel computes as well; returns how many."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != kernels.device_type or parameter.dtype not in DTYPES:
        return 0
    replaced: set[torch.nn.Module] = set()
    for parent, name, module in list(_children(model)):
        twin = _twin(module, parameter, kernels)
        if twin is not None:
            setattr(parent, name, twin)
            replaced.add(twin)
    for parent, name, module in list(_children(model)):
        gated = _gated(module, parameter, replaced)
        if gated is not None:
            setattr(parent, name, gated)
    return len(replaced)


def random_rows(shape: tuple[int, ...], like: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers, the same on every device, where ``like`` is and of its type."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(scale).to(like)


def _gated(module: torch.nn.Module, like: torch.Tensor, replaced: set[torch.nn.Module]) -> Gated | None:
    """The same feed-forward part in fewer passes, if it is one and its bits stay."""
    children = dict(module.named_children())
    activation = children.pop("act_fn", None)
    is_plain = set(children) == set(GATED) and all(type(child) is torch.nn.Linear for child in children.values())
    if not is_plain or activation is None or activation not in replaced:
        return None
    twin = Gated(module, activation)
    rows = random_rows((3, module.gate_proj.in_features), like)  # type: ignore[arg-type,union-attr]
    with torch.inference_mode():
        return twin if torch.equal(module(rows), twin(rows)) else None


def _children(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module]]:
    for parent in model.modules():
        for name, module in parent.named_children():
            yield parent, name, module


def _twin(module: torch.nn.Module, like: torch.Tensor, kernels: SmallKernels) -> torch.nn.Module | None:
    """The kernel that computes what the module does, most closely of those that come near enough."""
    candidates = list(_candidates(module, like.dtype, kernels))
    errors = [_error(module, twin, random_rows((5, width), like, scale=3.0)) for twin, width in candidates]
    best = min(range(len(errors)), key=errors.__getitem__, default=None)
    return None if best is None or not errors[best] <= 1.0 else candidates[best][0]


def _candidates(
    module: torch.nn.Module, dtype: torch.dtype, kernels: SmallKernels
) -> Iterator[tuple[torch.nn.Module, int]]:
    kind = type(module).__name__
    if kind in ACTIVATIONS and type(module).__module__ in (torch.nn.SiLU.__module__, activations.__name__):
        yield kernels.activation(ACTIVATIONS[kind]), 64
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not (kind.endswith("RMSNorm") and isinstance(weight, torch.Tensor) and isinstance(eps, float)):
        return
    if weight.dim() == 1 and weight.dtype == dtype and len(list(module.parameters())) == 1:
        for number in NORM_KINDS if len(weight) <= kernels.widest_norm else ():
            yield kernels.rms_norm(weight, eps, number), len(weight)


def _error(module: torch.nn.Module, twin: torch.nn.Module, rows: torch.Tensor) -> float:
    """The largest difference on random rows, in units of what is tolerated."""
    with torch.inference_mode():
        right, found = module(rows), twin(rows)
    if not isinstance(right, torch.Tensor) or right.dtype != rows.dtype or right.shape != found.shape:
        return torch.inf
    tolerated = _TOLERANCE[rows.dtype] * (right.float().abs() + 0.1)
    return float(((found.float() - right.float()).abs() / tolerated).max())
