"""Kernels for small modules: what the modules compute, to the last bit the same wherever a row stands."""

import pytest
import torch
from serin_worker.model.native_modules import NativeActivation, NativeRMSNorm
from serin_worker.model.rotation import Rotation
from serin_worker.model.small_kernels import native_kernels
from serin_worker.model.small_modules import Gated, replace_small_modules
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
RELATIVE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


pytestmark = pytest.mark.usefixtures("compiled_kernels")


def rows_of(count: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Random rows, some elements large."""
    return (torch.randn((count, width), generator=torch.Generator().manual_seed(0)) * 5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kind"), [("silu", 0), ("gelu_pytorch_tanh", 1)])
def test_activations(name, kind, dtype):
    """As accurate as the type allows, for every element and for values that overflow an exponential."""
    rows = torch.cat(
        [rows_of(7, 61, dtype), torch.full((1, 61), -300.0, dtype=dtype), torch.full((1, 61), 300.0, dtype=dtype)]
    )
    right = ACT2FN[name](rows.double())
    torch.testing.assert_close(NativeActivation(kind)(rows).double(), right, rtol=RELATIVE[dtype], atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "module"), [(0, LlamaRMSNorm), (1, Gemma2RMSNorm)])
def test_norms(kind, module, dtype):
    """Equal to the modules they replace, of any width."""
    for width in (16, 61, 128, 1024):
        own = module(width).to(dtype)
        torch.nn.init.normal_(own.weight)
        rows = rows_of(9, width, dtype)
        eps = own.variance_epsilon if kind == 0 else own.eps
        with torch.inference_mode():
            found, right = NativeRMSNorm(own.weight, eps, kind)(rows), own(rows)
        torch.testing.assert_close(found, right, rtol=RELATIVE[dtype], atol=1e-5)


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_batch(dtype):
    """A slice of rows gives the bits of all rows, whatever the width, the slice and the threads."""
    for width in (37, 128, 3072):
        rows = rows_of(60, width, dtype)
        norm = NativeRMSNorm(torch.randn(width).to(dtype), 1e-6, 0)
        for module in (NativeActivation(0), NativeActivation(1), norm):
            together = module(rows)
            for first, last in ((0, 1), (3, 4), (1, 17), (5, 58)):
                assert torch.equal(module(rows[first:last]), together[first:last])


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_activation_times_a_factor(dtype):
    """The bits of two operations, of any size."""
    for count in (1, 33, 100_003):
        rows, factor = rows_of(1, count, dtype), rows_of(1, count, dtype).flip(1)
        for kind in (0, 1):
            activation = NativeActivation(kind)
            assert torch.equal(activation(rows, factor), activation(rows) * factor)


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation(dtype):
    """The bits of the function in whose place it stands, whatever the strides; what it cannot do goes to that one."""
    rotation = rotation_of_the_cpu()
    for tokens, width in ((1, 128), (77, 64), (600, 32), (5, 48)):
        q, k = (rows_of(tokens, heads * width, dtype).view(1, tokens, heads, width) for heads in (6, 2))
        cos, sin = rows_of(2 * tokens, width, dtype).view(2, 1, tokens, width)
        given = (q.transpose(1, 2), k.transpose(1, 2), cos, sin)
        for right, found in zip(apply_rotary_pos_emb(*given), _without_gradients(rotation, *given), strict=True):
            assert torch.equal(right, found)


def rotation_of_the_cpu() -> Rotation:
    """Transformers' function, with the kernel of the CPU."""
    rotation = Rotation(getattr(apply_rotary_pos_emb, "original", apply_rotary_pos_emb))
    rotation.kernels["cpu"] = native_kernels()
    return rotation


def _without_gradients(rotation: Rotation, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return rotation(*given)


def test_rotation_keeps_gradients():
    """Whoever trains gets the function itself."""
    q = rows_of(4, 64, torch.float32).view(1, 1, 4, 64).requires_grad_()
    turned, _ = rotation_of_the_cpu()(q, q, q.detach()[0], q.detach()[0])
    assert turned.requires_grad


@pytest.mark.parametrize(("kind", "num_replaced"), [("qwen3", 2 * 5 + 1), ("llama", 2 * 3 + 1), ("gemma2", 2 * 5 + 1)])
def test_models_are_replaced_in_part_and_compute_the_same(kind, num_replaced, tiny_folder):
    """Norms and activations of known models are found, and the logits stay."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder(kind)).eval()
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        right = model(ids).logits
        assert replace_small_modules(model, native_kernels()) == num_replaced
        assert sum(isinstance(module, Gated) for module in model.modules()) == 2
        torch.testing.assert_close(model(ids).logits, right, rtol=1e-4, atol=1e-4)


def test_other_norms_are_left_alone():
    """A norm that computes something else is not replaced, whatever it is called."""

    class OddRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(16))
            self.eps = 1e-6

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows * self.weight - rows.mean(-1, keepdim=True)

    model = torch.nn.Sequential(OddRMSNorm(), torch.nn.GELU())
    assert replace_small_modules(model, native_kernels()) == 0
    config = AutoConfig.for_model(
        "opt",
        hidden_size=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=50,
        word_embed_proj_dim=32,
    )
    assert replace_small_modules(AutoModelForCausalLM.from_config(config), native_kernels()) == 0
