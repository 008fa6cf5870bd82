"""Packed linear layers: the same numbers, and a row's bits whatever it is computed with."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.model import packing
from serin_worker.model.packing import PackedLinear, pack_linears, packed_row_multiple

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture
def found_out_anew() -> Iterator[None]:
    """What was found out of shapes before does not count, and what this test finds does not count after it."""
    packing._row_multiple.cache_clear()
    yield
    packing._row_multiple.cache_clear()


@settings(max_examples=40)
@given(draw=st.randoms(use_true_random=True))
def test_what_is_said_to_keep_bits_does(draw):
    """Any slice of as many rows as was found out gives the bits that all rows together give."""
    dtype = draw.choice(DTYPES)
    size_in, size_out = (draw.choice((16, 48, 100, 192, 512, 1024, 2048, 3072)) for _ in range(2))
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    plain = torch.nn.Linear(size_in, size_out, bias=False)
    plain.weight = torch.nn.Parameter(torch.randn((size_out, size_in), generator=generator).to(dtype), False)
    multiple = packed_row_multiple(plain)
    if multiple is None:
        return  # this processor's kernels do not; such layers are not packed where bits must be kept
    layer = PackedLinear(plain.weight, None)
    rows = torch.randn((320, size_in), generator=generator).to(dtype)
    together = layer(rows)
    for _ in range(10):
        count = multiple * draw.choice((1, 1, 2, draw.randint(1, 300 // multiple)))
        first = draw.randint(0, 320 - count)
        assert torch.equal(layer(rows[first : first + count]), together[first : first + count])


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_a_plain_layer(dtype):
    """With and without bias, for any leading shape."""
    for bias in (True, False):
        plain = torch.nn.Linear(64, 96, bias=bias, dtype=dtype)
        packed = PackedLinear(plain.weight, plain.bias)
        rows = torch.randn((1, 7, 64), dtype=dtype)
        with torch.inference_mode():
            torch.testing.assert_close(packed(rows), plain(rows))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_type_that_the_processor_lacks_is_computed_in_float32(dtype, monkeypatch):
    """Rows come and go in the weight's type, and each number is the exact sum, rounded once."""
    monkeypatch.setattr(packing, "computed_in", lambda _: torch.float32)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn((96, 64), generator=generator).to(dtype), torch.randn(96, generator=generator).to(dtype)
    rows = torch.randn((7, 64), generator=generator).to(dtype)
    found = PackedLinear(weight, bias)(rows)
    exact = (rows.double() @ weight.double().T + bias.double()).to(dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


def test_a_tied_weight_stays_with_its_embedding():
    """Only plain linear layers are replaced; what others hold is left."""

    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 16)
            self.head = torch.nn.Linear(16, 50, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    weight = model.embedding.weight
    assert pack_linears(model) == 1
    assert isinstance(model.head, PackedLinear)
    assert model.embedding.weight is weight
    assert [name for name, _ in model.named_parameters()] == ["embedding.weight"]


def test_machines_that_cannot_keep_plain_layers(monkeypatch):
    """Where the operators are missing nothing is replaced, and that is all."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack_linears(model) == 0
    assert type(model[0]) is torch.nn.Linear


@pytest.mark.parametrize("from_rows", [2, 16])
def test_how_many_rows_it_takes_is_found_out(from_rows, monkeypatch, found_out_anew):
    """A kernel that computes few rows in another way is given more."""
    forward = PackedLinear.forward

    def two_ways(layer: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        return forward(layer, rows) * (1.0 if rows.shape[0] >= from_rows else 1.001)

    monkeypatch.setattr(PackedLinear, "forward", two_ways)
    assert packed_row_multiple(torch.nn.Linear(64, 64)) == from_rows


def test_layers_that_always_lose_bits_are_found_out(monkeypatch, found_out_anew):
    """A kernel whose rows depend on their number however many they are fails the check."""
    forward = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda layer, rows: forward(layer, rows) * (1 + 1e-5 * rows.shape[0]))
    assert packed_row_multiple(torch.nn.Linear(64, 64)) is None
