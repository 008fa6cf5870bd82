"""Linear layers in int8 on a device: by torch's product and by Triton's, both to the bits of what is said plainly."""

import pytest
import torch
from serin_worker.attention import interface
from serin_worker.attention.layer import StepSequences
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.config import EngineConfig
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.checkpoint import inspect
from serin_worker.model.int8 import linear_int8, quantized_rows, quantized_weight
from serin_worker.model.int8_layers import MULTIPLE, Int8Layers, quantize_linears, tell_limits, torch_product
from serin_worker.quantization import quantization_of
from transformers import AutoModelForCausalLM

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OUTPUTS = (32, 19, 70)


def layers(width, dtype, device, quantize, multiply, multiple):
    """Siblings, one of them with a bias, and what they are made of."""
    generator = torch.Generator().manual_seed(width)
    weights = [torch.randn((count, width), generator=generator).to(device, dtype) for count in OUTPUTS]
    biases = [None, torch.randn(OUTPUTS[1], generator=generator).to(device, dtype), None]
    made = [quantized_weight(weight) for weight in weights]
    return Int8Layers(made, biases, quantize, multiply, multiple), made, biases


@pytest.fixture(params=["torch", "triton"])
def kernels(request, triton_device):
    """A device, what makes int8 of rows there, and what multiplies them."""
    if request.param == "torch":
        return triton_device, quantized_rows, torch_product, MULTIPLE
    triton_int8 = pytest.importorskip("serin_worker.model.triton_int8", reason="Triton is missing")
    triton_quantize = pytest.importorskip("serin_worker.model.triton_quantize", reason="Triton is missing")
    return triton_device, triton_quantize.int8_rows, triton_int8.product, 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_rows", "width"), [(1, 61), (3, 320), (17, 64), (65, 300)])
def test_sums_are_exact(num_rows, width, dtype, kernels):
    """To the last bit, by every tile, of sizes that are multiples of nothing, of rows that are parts of wider ones."""
    device = kernels[0]
    module, weights, biases = layers(width, dtype, *kernels)
    wide = torch.randn((1, num_rows, 2 * width), generator=torch.Generator().manual_seed(1)) * 3
    rows = wide.to(device, dtype)[..., :width]
    rows[0, 0] = 0
    for found, weight, bias in zip(module(rows), weights, biases, strict=True):
        assert found.dtype == dtype
        assert torch.equal(found[0], linear_int8(rows[0], *weight, bias))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinity by zero
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_launch_quantizes_with_the_same_bits(dtype, triton_device):
    """Ties go to the even number; of rows with nothing, NaN or infinity in them the factor says so."""
    triton_quantize = pytest.importorskip("serin_worker.model.triton_quantize", reason="Triton is missing")
    for width in (61, 1200):
        rows = (torch.randn((1, 6, width), generator=torch.Generator().manual_seed(width)) * 7).to(triton_device, dtype)
        rows[0, 1] = 0
        rows[0, 2, 3], rows[0, 3, 4] = torch.nan, torch.inf
        rows[0, 4] = torch.arange(width).to(rows) % 64 + 0.5
        rows[0, 4, 0] = 127
        numbers, factors = triton_quantize.int8_rows(rows)
        right_numbers, right_factors = quantized_rows(rows)
        assert torch.equal(numbers, right_numbers)
        torch.testing.assert_close(factors, right_factors, rtol=0, atol=0, equal_nan=True)
        assert [bool(factor.isfinite()) for factor in factors[0]] == [True, True, False, False, True, True]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_row(bad, kernels):
    """The request that a row belongs to has to fail, and no other."""
    module, _, _ = layers(64, torch.float32, *kernels)
    rows = torch.randn((5, 64), generator=torch.Generator().manual_seed(0)).to(kernels[0])
    (right, *_) = module(rows)
    rows[2, 9] = bad
    (found, *_) = module(rows)
    assert found[2].isnan().all()
    others = [0, 1, 3, 4]
    assert torch.equal(found[others], right[others])


def test_a_row_keeps_its_bits_in_any_batch(kernels):
    """Whichever tile its batch has."""
    module, _, _ = layers(300, torch.bfloat16, *kernels)
    rows = torch.randn((70, 300), generator=torch.Generator().manual_seed(0)).to(kernels[0], torch.bfloat16)
    together = module(rows)
    for first, last in ((0, 1), (5, 21), (3, 67)):
        for one, other in zip(module(rows[first:last]), together, strict=True):
            assert torch.equal(one, other[first:last])


def test_a_model_computes_what_the_cpu_computes_in_int8(tiny_folder):
    """Siblings are found, the output layer is among them, and logits are those of the CPU's own kernels to rounding."""
    found = []
    for replace in (quantize_linears, None):
        interface.register()
        own = AutoModelForCausalLM.from_pretrained(tiny_folder("qwen3"), attn_implementation="serin_paged")
        model = CausalModel(own.eval().requires_grad_(False))
        if replace:
            groups = model._siblings(torch.nn.Linear)
            assert replace(own, groups) == 2 * 7 + 1
            assert sum(isinstance(part, Int8Layers) for part in own.modules()) == 2 * 4 + 1
        else:
            model.prepare(keep_bits=True, quantize="int8")
        model.bind(TorchPagedAttention(model.device), 2, 16)
        ids = torch.arange(6)
        steps = (torch.tensor(one, dtype=torch.int32) for one in ([0, 6], [6], [[1]]))
        found.append(model.forward(ids * 7, ids, StepSequences(*steps), ids))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_a_device_takes_int8(tiny_folder, caplog):
    """Asked for or stored; what never ran on a device says so."""
    config = EngineConfig(device="cuda", quantize="int8")
    assert quantization_of(inspect(tiny_folder("qwen3")), config, "bfloat16") == "int8"
    tell_limits(torch.device("cuda"))
    assert "on no device yet" in caplog.text
