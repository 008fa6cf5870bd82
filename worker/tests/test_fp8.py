"""Linear layers in e4m3: near to the exact sum of the same numbers, on both paths; an engine in them says so."""

import pytest
import torch
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.model import fp8
from serin_worker.model.fp8 import Fp8Layers, linear_fp8, quantized, quantized_weight
from serin_worker.startup import load_engine


def layers(shapes, dtype, *, is_scaled, width=64):
    """Layers with and without bias, and their weights."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn((count, width), generator=generator).to(dtype) for count in shapes]
    biases = [
        torch.randn(count, generator=generator).to(dtype) if index % 2 else None for index, count in enumerate(shapes)
    ]
    made = [quantized_weight(weight) for weight in weights]
    return Fp8Layers(made, biases, dtype, is_scaled=is_scaled), made, biases


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_paths_compute_what_is_said_plainly(dtype, is_scaled):
    """The device's own product (torch has it on the CPU too) and the one in wider numbers, for any leading shape."""
    module, weights, biases = layers((32, 16, 48), dtype, is_scaled=is_scaled)
    rows = (torch.randn((1, 7, 64), generator=torch.Generator().manual_seed(1)) * 3).to(dtype)
    rows[0, 3] = 0
    tolerance = 2e-5 if dtype is torch.float32 and not is_scaled else 2e-2  # rounded to bfloat16, at most twice
    for found, weight, bias in zip(module(rows), weights, biases, strict=True):
        assert found.dtype == dtype
        right = linear_fp8(rows[0], *weight, bias)[None]
        torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance)


def test_numbers_survive_to_three_bits():
    """The largest of a row is exact, no number is off by more than a sixteenth, zero rows stay zero."""
    rows = torch.randn((20, 64), generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 20)[:, None]
    rows[5] = 0
    numbers, factors = quantized(rows)
    back = numbers.float() * factors
    normal = rows.abs() > rows.abs().amax(dim=1, keepdim=True) * 2.0**-14
    assert float(((back - rows).abs() / rows.abs().clamp_min(1e-30))[normal & (rows.abs() > 1e-9)].max()) <= 1 / 16
    assert not back[5].any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinity by infinity
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_launch_quantizes_with_the_same_bits(dtype, triton_device):
    """Of any width, of rows that are parts of wider ones, and of rows with nothing, NaN or infinity in them."""
    triton_quantize = pytest.importorskip("serin_worker.model.triton_quantize", reason="Triton is missing")
    for width in (61, 1200):
        wide = torch.randn((1, 5, 2 * width), generator=torch.Generator().manual_seed(width)) * 7
        rows = wide.to(triton_device, dtype)[..., :width]
        rows[0, 1] = 0
        rows[0, 2, 3], rows[0, 3, 4] = torch.nan, torch.inf
        found = triton_quantize.e4m3_rows(rows, largest=torch.finfo(fp8.E4M3).max, least_factor=1e-12)
        for one, other in zip(found, quantized(rows), strict=True):
            assert one.dtype == other.dtype
            torch.testing.assert_close(one.float(), other.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_what_is_not_finite_stays_in_its_row(bad, is_scaled):
    """The request that a row belongs to has to fail, and no other."""
    module, _, _ = layers((32,), torch.float32, is_scaled=is_scaled)
    rows = torch.randn((5, 64), generator=torch.Generator().manual_seed(0))
    (right,) = module(rows)
    broken = rows.clone()
    broken[2, 9] = bad
    (found,) = module(broken)
    assert found[2].isnan().all()
    others = [0, 1, 3, 4]
    assert torch.equal(found[others], right[others])


def test_an_engine_in_fp8_says_so_and_keeps_bits(tiny_folder):
    """Its digest differs from the plain engine's and from int8's, and so do its numerics."""
    config = EngineConfig(num_blocks=16, num_threads=1, precision="bfloat16")
    about = {
        quantize: load_engine(str(tiny_folder("qwen3")), EngineConfig(**_fields(config, quantize)))[1]
        for quantize in ("none", "int8", "fp8")
    }
    assert about["fp8"].precision == "fp8/bfloat16"
    assert about["fp8"].numerics == about["none"].numerics
    assert len({one.kv_digest for one in about.values()}) == 3
    assert len({one.numerics_class for one in about.values()}) == 3


def _fields(config: EngineConfig, quantize: str) -> dict[str, object]:
    return {
        "num_blocks": config.num_blocks,
        "num_threads": config.num_threads,
        "precision": config.precision,
        "quantize": quantize,
    }


def test_limits_of_a_device_are_in_the_log(caplog):
    """A CPU saves nothing by it."""
    fp8.tell_limits(torch.device("cpu"))
    assert "--quantize int8" in caplog.text


def test_float16_is_refused_on_the_cpu(tiny_folder):
    """Products of the largest numbers are beyond it."""
    with pytest.raises(BadConfig, match="precision is float16; accepted: bfloat16 or float32"):
        load_engine(str(tiny_folder("llama")), EngineConfig(num_blocks=16, quantize="fp8", precision="float16"))
