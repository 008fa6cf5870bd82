"""Matrix products that torch computes for a model are seen, and proven like packed layers, or not trusted."""

import pytest
import torch
from serin_worker.model import products
from serin_worker.model.products import Product, find_products

ROWS = 8


class Mixed(torch.nn.Module):
    """Products of every kind: of all rows, of one number, of some rows, of weights in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 24)
        self.weight = torch.nn.Parameter(torch.randn(24, 16))
        self.experts = torch.nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, 16]."""
        angles = torch.ones(1, 5, 1) @ torch.ones(1, 1, ROWS)
        rows = torch.addmm(torch.zeros(16), self.linear(rows), self.weight) * angles.sum()
        rows[:3] = torch.nn.functional.linear(rows[:3], self.experts[0])
        return torch.bmm(rows.view(2, -1, 16), self.experts)


@pytest.fixture
def found_out_anew():
    """What was found out of shapes before does not count, and what this test finds does not count after it."""
    products._found_out.cache_clear()
    yield
    products._found_out.cache_clear()


def test_what_torch_multiplies_is_seen():
    """By its name, its shapes and how many rows one weight is multiplied by; a sum of one number is never rounded."""
    model = Mixed()
    with torch.inference_mode():
        found = find_products(lambda: model(torch.randn(ROWS, 16)))
    assert [(str(product), product.num_rows, product.has_bias) for product in found] == [
        ("linear [8, 16] x [24, 16]", 8, True),
        ("addmm [8, 24] x [24, 16]", 8, True),
        ("linear [3, 16] x [16, 16]", 3, False),
        ("bmm [2, 4, 16] x [2, 16, 16]", 0, False),
    ]
    assert found[-1].row_multiple() is None


@pytest.mark.parametrize("from_rows", [2, 16, 1000])
@pytest.mark.parametrize(
    ("operation", "product"),
    [
        ("addmm", Product("addmm", ((8, 16), (16, 24)), torch.float32, 8, has_bias=True)),
        ("matmul", Product("mm", ((8, 16), (16, 24)), torch.float32, 8, is_transposed=True)),
    ],
)
def test_how_many_rows_it_takes_is_found_out(operation, product, from_rows, monkeypatch, found_out_anew):
    """A kernel that computes few rows in another way is given more; one that always does is not trusted."""
    right = getattr(torch, operation)

    def two_ways(*factors: torch.Tensor) -> torch.Tensor:
        rows = factors[-2].shape[0]
        return right(*factors) * (1.0 if rows >= from_rows else 1 + 1e-3 * rows)

    monkeypatch.setattr(torch, operation, two_ways)
    assert product.row_multiple() == (from_rows if from_rows < 1000 else None)
