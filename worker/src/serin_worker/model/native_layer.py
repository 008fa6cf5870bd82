"""Whole decoder layers in one call each, where a layer is of the usual kind and its parts are kernels already.

A step then spends its time in kernels instead of between them. The call makes what the parts would have made, to the
last bit: a layer is replaced only if it does on random rows. Knows nothing about schedules or requests.
"""

import ctypes
from typing import Any

import torch

from serin_worker.attention import interface
from serin_worker.attention.interface import BoundLayer, PagedStep
from serin_worker.attention.layer import StepSequences
from serin_worker.attention.native import LayerPages, NativePagedAttention, StepRows, pages_of
from serin_worker.model.layer_kinds import LAYER, MODEL_TYPES
from serin_worker.model.native_linear import NativeWeights
from serin_worker.model.native_modules import NativeActivation, NativeRMSNorm
from serin_worker.model.native_rope import Angles, angles_of
from serin_worker.model.siblings import Member
from serin_worker.model.small_modules import GATED, Gated
from serin_worker.native.library import kernels
from serin_worker.native.outcome import answering

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_ATTENTION = {*_PROJECTIONS, "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_MOST_OUTPUTS = 3
_TRIED_ROWS = 5
_ROTATED = 32
"""In whose multiples the kernel takes dimensions of a head."""


class _Norm(ctypes.Structure):
    _fields_ = (("weights", ctypes.c_void_p), ("kind", ctypes.c_int32), ("eps", ctypes.c_float))


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("width", ctypes.c_int64),
        ("columns", ctypes.c_int64 * _MOST_OUTPUTS),
        ("kind", ctypes.c_int32),
        ("num_outputs", ctypes.c_int32),
    )


class _DecoderLayer(ctypes.Structure):
    _fields_ = (
        ("attention", LayerPages),
        ("before_attention", _Norm),
        ("query", _Norm),
        ("key", _Norm),
        ("before_feed_forward", _Norm),
        ("projections", _Linear),
        ("output", _Linear),
        ("gate_and_up", _Linear),
        ("down", _Linear),
        ("activation", ctypes.c_int32),
    )


class NativeDecoderLayer(torch.nn.Module):
    """Stands where a decoder layer stood, and holds it.

    Args:
        layer: bound to its pages; it and they stay.
        attention: whose pages they are.

    Raises:
        ValueError: some part of it is no kernel, or it has other parts.
    """

    def __init__(self, layer: torch.nn.Module, attention: NativePagedAttention) -> None:
        super().__init__()
        bound = interface.bound_to(layer.self_attn)  # type: ignore[arg-type]
        if bound is None:
            raise ValueError("not bound to pages")
        self.layer = layer
        self._attention = attention
        self._bound = bound
        self._parts = _described(layer, bound)
        self._kernel = answering(kernels().serin_decoder_layer)
        pointers = [ctypes.POINTER(kind) for kind in (_DecoderLayer, StepRows, Angles)]
        self._kernel.argtypes = [*pointers, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]

    def forward(self, hidden_states: torch.Tensor, *_: Any, **given: Any) -> torch.Tensor:
        """[1, tokens, width], as the layer itself; its ``position_embeddings`` are cosines and sines."""
        hidden, (cos, sin) = hidden_states.contiguous(), given["position_embeddings"]
        out = torch.empty_like(hidden)
        step, angles = self._attention.step_rows(self._bound.sequences), angles_of(cos, sin)
        self._kernel(self._parts, step, angles, hidden.data_ptr(), out.data_ptr(), hidden.shape[1])
        self._bound.step.num_layers_run += 1
        return out


def replace_layers(model: torch.nn.Module, attention: NativePagedAttention) -> int:
    """Replace the decoder layers of a bound model that one call computes to the same bits; returns how many."""
    if getattr(model.config, "model_type", "") not in MODEL_TYPES:
        return 0
    replaced = 0
    for name, layer in list(model.named_modules()):
        if {child for child, _ in layer.named_children()} == LAYER and _is_same(layer, attention):
            model.set_submodule(name, NativeDecoderLayer(layer, attention))
            replaced += 1
    return replaced


def _described(layer: Any, bound: BoundLayer) -> _DecoderLayer:
    """A layer as the kernel takes it."""
    children = {name for name, _ in layer.self_attn.named_children()}
    if not (children - _HEAD_NORMS == _ATTENTION and isinstance(layer.mlp, Gated)):
        raise ValueError("other parts")
    if not isinstance(layer.mlp.activation, NativeActivation):
        raise ValueError("an activation of another kind")
    gate, up, down = (layer.mlp.get_submodule(name) for name in GATED)
    return _DecoderLayer(
        pages_of(bound.cache),
        _norm(layer.input_layernorm),
        _norm(getattr(layer.self_attn, "q_norm", None)),
        _norm(getattr(layer.self_attn, "k_norm", None)),
        _norm(layer.post_attention_layernorm),
        _linear([layer.self_attn.get_submodule(name) for name in _PROJECTIONS]),
        _linear([layer.self_attn.o_proj]),
        _linear([gate, up]),
        _linear([down]),
        layer.mlp.activation.kind,
    )


def _norm(module: torch.nn.Module | None) -> _Norm:
    if module is None:
        return _Norm()
    if not isinstance(module, NativeRMSNorm):
        raise ValueError("a norm of another kind")
    return _Norm(module.weight.data_ptr(), module.kind, module.eps)


def _linear(modules: list[torch.nn.Module]) -> _Linear:
    group = modules[0].group if isinstance(modules[0], Member) else None
    weights = group.compute if group is not None else None
    if not (isinstance(weights, NativeWeights) and len(weights.out_features) == len(modules)):
        raise ValueError("linear layers of another kind")
    if any(not isinstance(m, Member) or (m.group, m.index) != (group, i) for i, m in enumerate(modules)):
        raise ValueError("linear layers that are not computed together")
    return _Linear(
        weights.packed.data_ptr(),
        weights.scales.data_ptr(),
        None if weights.bias is None else weights.bias.data_ptr(),
        weights.in_features,
        (ctypes.c_int64 * _MOST_OUTPUTS)(*weights.out_features),
        weights.kind,
        len(weights.out_features),
    )


@torch.inference_mode()
def _is_same(layer: Any, attention: NativePagedAttention) -> bool:
    """Whether one call makes the bits that the layer makes, of a prompt's rows and of one more."""
    bound = interface.bound_to(layer.self_attn)
    if bound is None or (spec := bound.cache.spec).key_dim != spec.value_dim or spec.key_dim % _ROTATED:
        return False
    try:
        right = _tried(layer, attention, in_one_call=False)
        return all(map(torch.equal, right, _tried(layer, attention, in_one_call=True)))
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError):
        return False
    finally:
        interface.bind(layer.self_attn, bound.cache, bound.step)


def _tried(layer: Any, attention: NativePagedAttention, *, in_one_call: bool) -> list[torch.Tensor]:
    """What a layer makes of random rows, with pages of its own: of a prompt, and of the token after it."""
    bound = interface.bound_to(layer.self_attn)
    assert bound is not None
    step = PagedStep(attention)
    cache = attention.allocate(bound.cache.spec, 1, attention.block_size, bound.cache.keys.dtype)
    interface.bind(layer.self_attn, cache, step)
    run = NativeDecoderLayer(layer, attention) if in_one_call else layer
    generator = torch.Generator().manual_seed(0)
    found = []
    width, dtype = layer.input_layernorm.weight.shape[0], layer.input_layernorm.weight.dtype
    for first, last in ((0, _TRIED_ROWS), (_TRIED_ROWS, _TRIED_ROWS + 1)):
        rows, cos, sin = (
            torch.randn((1, last - first, size), generator=generator).to(dtype)
            for size in (width, bound.cache.spec.key_dim, bound.cache.spec.key_dim)
        )
        starts, contexts, tables = ([0, last - first], [last], [[0]])
        step.sequences = StepSequences(*(torch.tensor(one, dtype=torch.int32) for one in (starts, contexts, tables)))
        found.append(run(rows, attention_mask=None, position_ids=None, position_embeddings=(cos, sin)))
    return found
