"""Plain linear layers that are given the same rows as one matrix product: for devices where a call costs as much.

The parts of the product are views. Knows nothing about what layers are part of.
"""

from collections.abc import Callable

import torch

from serin_worker.model.siblings import Siblings, replace_siblings

DTYPES = (torch.bfloat16, torch.float16)


class MergedLinear(torch.nn.Module):
    """One or more layers that are given the same rows, as one; they may be dropped after."""

    def __init__(self, layers: list[torch.nn.Linear]) -> None:
        super().__init__()
        weights = [layer.weight.detach() for layer in layers]
        self.in_features = layers[0].in_features
        self.out_features = [len(weight) for weight in weights]
        self.weight = torch.nn.Parameter(torch.cat(weights), requires_grad=False)
        self.bias = None
        if any(layer.bias is not None for layer in layers):
            biases = [
                weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
                for layer, weight in zip(layers, weights, strict=True)
            ]
            self.bias = torch.nn.Parameter(torch.cat(biases), requires_grad=False)

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer."""
        product = torch.nn.functional.linear(rows, self.weight, self.bias)
        return list(torch.split(product, self.out_features, -1))


def merge_linears(
    model: torch.nn.Module, groups: list[Siblings], progress: Callable[[float], None] | None = None
) -> int:
    """Replace siblings among the plain linear layers of a model; returns how many. A layer that stands alone stays.

    Args:
        model: its layers are replaced in place.
        groups: layers by name, siblings together.
        progress: called with the fraction of groups done.
    """
    return replace_siblings(model, [group for group in groups if len(group) > 1], MergedLinear, progress)  # type: ignore[arg-type]
