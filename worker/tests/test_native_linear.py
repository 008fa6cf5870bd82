"""Linear layers by the kernel: in 8 bits its bits are plain torch's, and in either kind a row's are its own."""

import ctypes
import shutil
import subprocess

import pytest
import torch
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.model import native_linear
from serin_worker.model.int8 import linear_int8, quantized_weight
from serin_worker.model.native_linear import Kind, NativeWeights, replace_linears
from serin_worker.model.siblings import find_siblings
from serin_worker.native import library
from serin_worker.native.library import KernelUnavailable
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY
from transformers import AutoModelForCausalLM

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((64, (32,)), (100, (33, 7, 96)), (17, (5,)), (1, (1,)), (1024, (256, 128)))
ROWS = (1, 2, 5, 16, 17, 33, 70)
PROCESSORS = {"native": "avx2", "x86-64-v3": "avx2", "icelake-server": "avx512_vnni", "cooperlake": "avx512_bf16"}
"""Tiles where this machine has them; vectors of any kind; vectors that add several products at once."""


pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.fixture(scope="module", params=PROCESSORS)
def _processor(request, tmp_path_factory):
    """The kernel compiled for a kind of processor, where this one can run it."""
    if request.param == "native":
        yield
        return
    if not {"avx2", "fma", PROCESSORS[request.param]} <= library.processor_flags():
        pytest.skip(f"this processor cannot run {request.param}")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    made = tmp_path_factory.mktemp("linear") / "linear.so"
    source = library.resources.files("serin_worker.native").joinpath("linear.cpp")
    options = [flag for flag in library._FLAGS if not flag.startswith("-march")]
    options += ["-shared", f"-march={request.param}"]
    subprocess.run([compiler, *options, str(source), "-o", str(made)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_linear, "kernels", lambda: ctypes.CDLL(str(made)))
        yield


def _numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.usefixtures("_processor")
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_8_bits_equal_to_plain_torch_to_the_last_bit(dtype):
    """Any width, any number of layers and rows, with and without bias, on every kind of processor."""
    for width, outputs in SHAPES:
        weights = [_numbers(count, width, dtype=dtype, seed=index) for index, count in enumerate(outputs)]
        biases = [_numbers(count, dtype=dtype) if index % 2 else None for index, count in enumerate(outputs)]
        layers = NativeWeights(Kind.INT8, weights, biases)
        for count in ROWS:
            rows = _numbers(count, width, dtype=dtype, seed=count) * 3
            rows[0] = 0
            for found, weight, bias in zip(layers(rows), weights, biases, strict=True):
                assert torch.equal(found, linear_int8(rows, *quantized_weight(weight), bias))


@pytest.mark.usefixtures("_processor")
def test_in_bfloat16_as_exact_as_float32():
    """Products are exact and summed in float32; the result is rounded once. Bits do not depend on the batch."""
    for width, outputs in SHAPES:
        weights = [_numbers(count, width, dtype=torch.bfloat16, seed=index) for index, count in enumerate(outputs)]
        biases = [_numbers(count, dtype=torch.bfloat16) if index % 2 else None for index, count in enumerate(outputs)]
        layers = NativeWeights(Kind.BFLOAT16, weights, biases)
        rows = _numbers(max(ROWS), width, dtype=torch.bfloat16, seed=1)
        together = layers(rows)
        for found, weight, bias in zip(together, weights, biases, strict=True):
            right = rows.double() @ weight.double().T + (0 if bias is None else bias.double())
            size = rows.double().abs() @ weight.double().abs().T + 1
            assert found.dtype is torch.bfloat16
            assert bool(((found.double() - right).abs() <= right.abs() * 2**-8 + size * 2**-20).all())
        for count in ROWS:
            for alone, whole in zip(layers(rows[-count:]), together, strict=True):
                assert torch.equal(alone, whole[-count:])


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize("kind", Kind)
def test_bits_do_not_depend_on_the_batch(kind):
    """A slice of rows gives the bits of all rows, with as many threads as there are processors or more."""
    layer = NativeWeights(kind, [_numbers(1500, 200, dtype=torch.bfloat16)], [None])
    rows = _numbers(80, 200, dtype=torch.bfloat16)
    (together,) = layer(rows)
    for first, count in ((0, 1), (3, 16), (7, 17), (11, 33), (40, 40)):
        assert torch.equal(layer(rows[first : first + count])[0], together[first : first + count])


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_finite_stays_in_its_row(kind):
    """A row with NaN or infinity gives nothing finite; the others what they give without it."""
    layer = NativeWeights(kind, [_numbers(40, 64, dtype=torch.bfloat16)], [None])
    rows = _numbers(6, 64, dtype=torch.bfloat16)
    (right,) = layer(rows)
    broken = rows.clone()
    broken[1, 3], broken[4, 63] = torch.nan, torch.inf
    (found,) = layer(broken)
    assert not found[[1, 4]].isfinite().any()
    assert torch.equal(found[[0, 2, 3, 5]], right[[0, 2, 3, 5]])


def test_near_to_the_layer_it_replaces():
    """One percent of error at most on random numbers: what 8 bits can say."""
    weight, rows = torch.randn(256, 512), torch.randn(20, 512)
    (found,) = NativeWeights(Kind.INT8, [weight], [None])(rows)
    right = rows @ weight.T
    assert float((found - right).norm() / right.norm()) < 0.015


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_siblings_are_found_and_computed_in_one_pass(kind, tiny_folder):
    """Query, key and value together, gate and up together, nothing else; the model then computes nearly the same."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder(kind), dtype=torch.float32).eval()
    ids = torch.randint(TINY_VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = model(input_ids=ids).logits
        groups = find_siblings(model, lambda: model(input_ids=ids))
        assert sorted(len(group) for group in groups) == sorted([3, 1, 2, 1] * model.config.num_hidden_layers + [1])
        assert replace_linears(model, Kind.INT8, groups) == sum(len(group) for group in groups)
        found = model(input_ids=ids).logits
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    assert float((found - right).norm() / right.norm()) < 0.05


def test_a_layer_that_shares_no_rows_after_all_is_right_all_the_same():
    """Two layers that shared their rows when looked at, and do not later."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(32, 8), torch.nn.Linear(32, 16)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.first(a), self.second(b), self.first(a)], dim=1)

    model = Two()
    a, b = torch.randn(3, 32), torch.randn(3, 32)
    with torch.inference_mode():
        groups = find_siblings(model, lambda: model(a, a))
        assert groups == [["first", "second"]]
        quantized = {name: quantized_weight(getattr(model, name).weight) for name in groups[0]}
        biases = {name: getattr(model, name).bias for name in groups[0]}
        replace_linears(model, Kind.INT8, groups)
        first, second = (
            linear_int8(rows, *quantized[name], biases[name]) for name, rows in (("first", a), ("second", b))
        )
        assert torch.equal(model(a, b), torch.cat([first, second, first], dim=1))


def test_an_engine_in_8_bits_says_so_and_keeps_bits(tiny_folder):
    """Its digest differs from the plain engine's, and `numerics: invariant` holds."""
    plain = load_engine(str(tiny_folder("qwen3")), EngineConfig(num_blocks=16, num_threads=1))[1]
    config = EngineConfig(num_blocks=16, num_threads=1, quantize="int8", numerics="invariant")
    quantized = load_engine(str(tiny_folder("qwen3")), config)[1]
    assert quantized.precision == f"int8/{plain.precision}"
    assert quantized.numerics == "invariant"
    assert quantized.numerics_class != plain.numerics_class
    assert quantized.kv_digest != plain.kv_digest


def test_without_a_compiler_it_is_refused(tiny_folder, monkeypatch):
    """Plain torch would be slower than what was to be sped up."""

    def none() -> ctypes.CDLL:
        raise KernelUnavailable("no C++ compiler found")

    monkeypatch.setattr(native_linear, "kernels", none)
    with pytest.raises(BadConfig, match="none, since its kernel cannot be built here: no C"):
        load_engine(str(tiny_folder("llama")), EngineConfig(num_blocks=16, quantize="int8"))
