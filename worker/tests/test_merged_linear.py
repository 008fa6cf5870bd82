"""Siblings as one product give what each gives alone."""

import pytest
import torch
from serin_worker.model.merged_linear import MergedLinear, merge_linears
from serin_worker.model.siblings import Member, copy_if_needed


class Part(torch.nn.Module):
    """Two siblings; what they give may be reshaped in a way that views do not allow."""

    def __init__(self, *, is_reshaped: bool = False) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(48, 32), torch.nn.Linear(48, 80, bias=False)
        self.is_reshaped = is_reshaped

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[2, 3, 48]."""
        found = self.one(rows), self.other(rows)
        return tuple(one.view(-1) for one in found) if self.is_reshaped else found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merged_layers_compute_what_they_did(dtype):
    """To rounding, with and without bias; the parts are views of one tensor, and a layer that stands alone stays."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"part": Part(), "alone": torch.nn.Linear(48, 16)}).to(dtype).requires_grad_(False)
    rows = torch.randn(2, 3, 48).to(dtype)
    right = model["part"](rows)
    assert merge_linears(model, [["part.one", "part.other"], ["alone"]]) == 2
    assert isinstance(model["part"].one.layers, MergedLinear)
    assert isinstance(model["part"].other, Member)
    assert type(model["alone"]) is torch.nn.Linear
    found = model["part"](rows)
    for one, other in zip(right, found, strict=True):
        torch.testing.assert_close(one, other)
    assert len({one.untyped_storage().data_ptr() for one in found}) == 1


def test_parts_are_copied_for_a_model_that_takes_no_views():
    """Found out by running it once."""
    model = Part(is_reshaped=True).requires_grad_(False)
    rows = torch.randn(2, 3, 48)
    right = model(rows)
    merge_linears(model, [["one", "other"]])
    with pytest.raises(RuntimeError, match="view"):
        model(rows)
    copy_if_needed(model, lambda: model(rows))
    for one, other in zip(right, model(rows), strict=True):
        torch.testing.assert_close(one, other)
