"""Triton's kernels for small modules: what transformers' modules compute, whatever strides and batch a row has."""

import sys

import pytest
import torch
from serin_worker.attention import interface
from serin_worker.attention.layer import StepSequences
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.fused_layer import FusedDecoderLayer, fuse_residuals
from serin_worker.model.rotation import NAME, Rotation, replace_rotation
from serin_worker.model.small_kernels import triton_kernels
from serin_worker.model.small_modules import Gated, replace_small_modules
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

triton_modules = pytest.importorskip("serin_worker.model.triton_modules", reason="Triton is missing")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
RELATIVE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def rows_of(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> torch.Tensor:
    """Random rows, some elements large."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 5).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [61, 128, 1500])
def test_norms(width, dtype, triton_device):
    """Each kind equals the module that rounds so, and a sum in the same launch changes no bit."""
    rows = rows_of((3, width), dtype, triton_device)
    weight = rows_of((width,), dtype, triton_device, seed=1)
    plain, plus_one = (module(width, eps=1e-6).to(triton_device, dtype) for module in (LlamaRMSNorm, Gemma2RMSNorm))
    plain.weight.data = plus_one.weight.data = weight
    scaled = rows.float() * torch.rsqrt(rows.float().square().mean(-1, keepdim=True) + 1e-6)
    with torch.inference_mode():
        for kind, right in enumerate((plain(rows), plus_one(rows), (scaled * weight.float()).to(dtype))):
            norm = triton_modules.TritonRMSNorm(weight, 1e-6, kind)
            torch.testing.assert_close(norm(rows), right, rtol=RELATIVE[dtype], atol=1e-5)
            total, normed = norm.add(rows, rows.flip(0))
            assert torch.equal(total, rows + rows.flip(0))
            assert torch.equal(normed, norm(total))


def test_rounding_of_norms_tells_kinds_apart(triton_device):
    """In 16 bits each kind gives its own module's bits, and no other's: a last bit at most comes of another order."""
    rows = rows_of((64, 64), torch.bfloat16, triton_device)
    own = LlamaRMSNorm(64).to(triton_device, torch.bfloat16)
    own.weight.data = rows_of((64,), torch.bfloat16, triton_device, seed=1)
    with torch.inference_mode():
        right = own(rows)
        num_different = [
            int((triton_modules.TritonRMSNorm(own.weight, 1e-6, kind)(rows) != right).sum()) for kind in (0, 2)
        ]
    assert num_different[0] <= 4 < num_different[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(dtype, triton_device):
    """As accurate as the type allows, also where an exponential overflows; times a factor with the bits of two."""
    rows = rows_of((4, 1061), dtype, triton_device)
    rows[0], rows[1] = -300, 300
    for kind, name in enumerate(("silu", "gelu_pytorch_tanh")):
        activation = triton_modules.TritonActivation(kind)
        found = activation(rows)
        torch.testing.assert_close(found.double(), ACT2FN[name](rows.double()), rtol=RELATIVE[dtype], atol=1e-6)
        assert torch.equal(activation(rows, rows.flip(0)), found * rows.flip(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width", "heads"), [(1, 128, (16, 8)), (7, 48, (9, 1))])
def test_rotation(tokens, width, heads, dtype, triton_device):
    """The bits of transformers' function, of parts of one product as of tensors of their own."""
    original = getattr(apply_rotary_pos_emb, "original", apply_rotary_pos_emb)
    product = rows_of((1, tokens, (sum(heads) + 1) * width), dtype, triton_device)
    q, k, _ = torch.split(product, [heads[0] * width, heads[1] * width, width], -1)
    q, k = (tensor.view(1, tokens, -1, width).transpose(1, 2) for tensor in (q, k))
    cos, sin = rows_of((2, 1, tokens, width), dtype, triton_device, seed=1)
    rotation = Rotation(original)
    rotation.kernels[triton_device.type] = triton_kernels(triton_device.type)
    with torch.inference_mode():
        for given in ((q, k), (q.contiguous(), k.contiguous())):
            for right, found in zip(original(*given, cos, sin), rotation(*given, cos, sin), strict=True):
                assert torch.equal(right, found)


def test_a_row_keeps_its_bits_in_any_batch_and_stride(triton_device):
    """A slice of rows gives the bits of all rows, and so do rows that are parts of wider ones."""
    for width in (37, 128, 600):
        rows = rows_of((1, 5, 2, width), torch.bfloat16, triton_device)
        wide = torch.cat([rows, rows], -1)[..., :width]
        norm = triton_modules.TritonRMSNorm(torch.ones(width).to(rows), 1e-6, 0)
        for module in (triton_modules.TritonActivation(0), norm):
            together = module(rows)
            assert torch.equal(module(wide), together)
            for first, last in ((3, 4), (1, 5)):
                assert torch.equal(module(rows[:, first:last]), together[:, first:last])


def test_a_model_is_replaced_and_computes_the_same(tiny_folder, triton_device, monkeypatch):
    """Norms, activations, rotation, merged siblings and fused sums all find their places, and the logits stay."""
    interface.register()
    own = AutoModelForCausalLM.from_pretrained(tiny_folder("qwen3"), attn_implementation="serin_paged")
    model = CausalModel(own.eval().requires_grad_(False).to(triton_device))
    module = sys.modules[type(own).__module__]
    standing = getattr(module, NAME)
    monkeypatch.setattr(module, NAME, getattr(standing, "original", standing))
    kernels = triton_kernels(triton_device.type)
    right = _logits(model)
    assert replace_small_modules(own, kernels) == 2 * 5 + 1
    assert sum(isinstance(part, Gated) for part in own.modules()) == 2
    assert replace_rotation(own, kernels)
    model.merge(model._siblings(torch.nn.Linear))
    assert model.linears == "merged"
    found = _logits(model)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert fuse_residuals(own) == sum(isinstance(part, FusedDecoderLayer) for part in own.modules()) == 2
    assert torch.equal(_logits(model), found)


def _logits(model: CausalModel) -> torch.Tensor:
    """Of a prompt of five tokens and the one after it."""
    model.bind(TorchPagedAttention(model.device), 2, 16)
    found = []
    for first, last in ((0, 5), (5, 6)):
        ids, rows = torch.arange(first, last).to(model.device), torch.arange(last - first).to(model.device)
        steps = (torch.tensor(one, dtype=torch.int32) for one in ([0, last - first], [last], [[1]]))
        found.append(model.forward(ids * 7, ids, StepSequences(*steps), rows))
    return torch.cat(found)
