"""Small modules of a model (activations, RMS norms) computed by kernels: one pass, and the same bits in every batch.

A module is replaced only if the kernel gives what the module itself gives on random rows. Knows nothing about where
in the model they are.
"""

import ctypes
from collections.abc import Iterator

import torch
from transformers import activations

from serin_worker.native.library import DTYPES, has_kernels, kernels, num_threads

_ACTIVATIONS: dict[str, int] = {"SiLU": 0, "SiLUActivation": 0, "GELUTanh": 1, "PytorchGELUTanh": 1}
GATED = ("gate_proj", "up_proj", "down_proj")
"""Layers of a feed-forward part; with `act_fn`, all that it has."""
_NORM_KINDS = (0, 1, 2)
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


class NativeActivation(torch.nn.Module):
    """SiLU or tanh-GELU, element by element."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind
        self._kernel = kernels().serin_activate
        self._kernel.argtypes = [ctypes.c_int32, ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int32]

    def forward(self, rows: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        """Any shape; times a factor of the same shape, if there is one."""
        rows = rows.contiguous()
        factor = None if factor is None else factor.contiguous()
        out = torch.empty_like(rows)
        self._kernel(
            self.kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            None if factor is None else factor.data_ptr(),
            out.data_ptr(),
            rows.numel(),
            num_threads(),
        )
        return out


class NativeGated(torch.nn.Module):
    """A feed-forward part, ``down(activation(gate(x)) * up(x))``, with activation and product in one pass."""

    def __init__(self, part: torch.nn.Module, activation: NativeActivation) -> None:
        super().__init__()
        for name in GATED:
            self.add_module(name, part.get_submodule(name))
        self.activation = activation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        gate, up, down = (self.get_submodule(name) for name in GATED)
        result: torch.Tensor = down(self.activation(gate(rows), up(rows)))
        return result


class NativeRMSNorm(torch.nn.Module):
    """``x / rms(x) * weight`` over the last dimension; kinds differ in where they round and whether one is added."""

    def __init__(self, weight: torch.Tensor, eps: float, kind: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.eps = eps
        self.kind = kind
        self._kernel = kernels().serin_rms_norm
        pointers = [ctypes.c_void_p] * 3
        self._kernel.argtypes = [
            *[ctypes.c_int32] * 2,
            *pointers,
            ctypes.c_int64,
            ctypes.c_int32,
            ctypes.c_float,
            ctypes.c_int32,
        ]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        rows = rows.contiguous()
        out = torch.empty_like(rows)
        width = rows.shape[-1]
        self._kernel(
            self.kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            self.weight.data_ptr(),
            out.data_ptr(),
            rows.numel() // width,
            width,
            self.eps,
            num_threads(),
        )
        return out


def replace_small_modules(model: torch.nn.Module) -> int:
    """Replace the activations and norms that a kernel computes as well; returns how many."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or parameter.dtype not in DTYPES or not has_kernels():
        return 0
    replaced = 0
    for parent, name, module in list(_children(model)):
        twin = _twin(module, parameter.dtype)
        if twin is not None:
            setattr(parent, name, twin)
            replaced += 1
    for parent, name, module in list(_children(model)):
        gated = _gated(module, parameter.dtype)
        if gated is not None:
            setattr(parent, name, gated)
    return replaced


def _gated(module: torch.nn.Module, dtype: torch.dtype) -> NativeGated | None:
    """The same feed-forward part in fewer passes, if it is one and its bits stay."""
    children = dict(module.named_children())
    activation = children.pop("act_fn", None)
    is_plain = set(children) == set(GATED) and all(type(child) is torch.nn.Linear for child in children.values())
    if not (is_plain and isinstance(activation, NativeActivation)):
        return None
    twin = NativeGated(module, activation)
    rows = torch.randn((3, module.gate_proj.in_features), generator=torch.Generator().manual_seed(0)).to(dtype)  # type: ignore[arg-type,union-attr]
    with torch.inference_mode():
        return twin if torch.equal(module(rows), twin(rows)) else None


def _children(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module]]:
    for parent in model.modules():
        for name, module in parent.named_children():
            yield parent, name, module


def _twin(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module | None:
    """The kernel that computes what the module does, most closely of those that come near enough."""
    candidates = list(_candidates(module, dtype))
    errors = [_error(module, twin, width, dtype) for twin, width in candidates]
    best = min(range(len(errors)), key=errors.__getitem__, default=None)
    return None if best is None or not errors[best] <= 1.0 else candidates[best][0]


def _candidates(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[tuple[torch.nn.Module, int]]:
    kind = type(module).__name__
    if kind in _ACTIVATIONS and type(module).__module__ in (torch.nn.SiLU.__module__, activations.__name__):
        yield NativeActivation(_ACTIVATIONS[kind]), 64
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not (kind.endswith("RMSNorm") and isinstance(weight, torch.Tensor) and isinstance(eps, float)):
        return
    if weight.dim() == 1 and weight.dtype == dtype and len(list(module.parameters())) == 1:
        for number in _NORM_KINDS:
            yield NativeRMSNorm(weight, eps, number), weight.shape[0]


def _error(module: torch.nn.Module, twin: torch.nn.Module, width: int, dtype: torch.dtype) -> float:
    """The largest difference on random rows, in units of what is tolerated."""
    rows = torch.randn((5, width), generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    with torch.inference_mode():
        right, found = module(rows), twin(rows)
    if not isinstance(right, torch.Tensor) or right.dtype != dtype or right.shape != found.shape:
        return torch.inf
    tolerated = _TOLERANCE[dtype] * (right.float().abs() + 0.1)
    return float(((found.float() - right.float()).abs() / tolerated).max())
