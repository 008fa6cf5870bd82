"""Matrix products that a model has torch compute, and whether their rows keep their bits in every batch.

Experts are such products: weights of three dimensions, multiplied by as many rows as were sent to each; and layers that
are no `torch.nn.Linear`. Products of kernels that are known to keep bits are none. Seen in a run, not by names of
models. Knows nothing about what products are part of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from serin_worker.model.operations import Through
from serin_worker.model.row_bits import mirrored, row_multiple

_FACTORS = {"linear": (0, 1), "matmul": (0, 1), "mm": (0, 1), "_scaled_mm": (0, 1), "addmm": (1, 2)}
"""Which arguments are rows and weight, of operations that multiply all rows by one weight."""
_OTHERS = {
    *("bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "inner", "einsum", "tensordot", "bilinear"),
    *("_grouped_mm", "_scaled_grouped_mm", "convolution", "conv1d", "conv2d", "mkldnn_linear", "_addmm_activation"),
}  # fmt: skip
_PACKED = ("mkldnn", "_linear_pointwise")


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product of a run.

    Attributes:
        operation: torch's name of it.
        shapes: of its factors, in order.
        dtype: of its first factor.
        num_rows: rows that one weight is multiplied by; 0: it is not that kind of product.
        is_packed: by a packed layer, of which is known in multiples of how many rows it keeps bits.
        is_transposed: the weight lies in memory the other way round.
        has_bias: numbers are added in the same pass.
    """

    operation: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    num_rows: int = 0
    is_packed: bool = False
    is_transposed: bool = False
    has_bias: bool = False

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.operation} {' x '.join(str(list(shape)) for shape in self.shapes)}"

    def row_multiple(self) -> int | None:
        """In multiples of how many rows a row keeps its bits on this machine's CPU; None: in none, or nobody knows."""
        if not self.num_rows or self.operation == "_scaled_mm":
            return None
        alike = replace(self, shapes=(self.shapes[0][-1:], self.shapes[1]), num_rows=1)
        return _found_out(alike, torch.get_num_threads())


def find_products(run: Callable[[], object]) -> list[Product]:
    """What ``run()`` has torch multiply, each kind once; sums of one number, which nothing is rounded in, left out."""
    found: dict[Product, None] = {}

    def note(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        product = _product(func, args)
        if product is not None:
            found[product] = None
        return func(*args, **kwargs)

    with Through(note):
        run()
    return list(found)


def _product(func: torch._ops.OpOverload, args: Sequence[Any]) -> Product | None:
    operation = func.overloadpacket.__name__
    tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
    is_packed = (func.namespace, operation) == _PACKED
    if is_packed or (func.namespace == "aten" and operation in _FACTORS):
        first, second = (args[at] for at in _FACTORS.get(operation, (0, 1)))
        shapes = (tuple(first.shape), tuple(second.shape))
        if first.shape[-1] == 1:
            return None
        num_rows = first.numel() // first.shape[-1] if second.dim() == 2 else 0
        is_transposed = not is_packed and second.dim() == 2 and not second.is_contiguous()
        has_bias = operation == "addmm" or (operation == "linear" and len(args) > 2 and args[2] is not None)
        return Product(operation, shapes, first.dtype, num_rows, is_packed, is_transposed, has_bias)
    if func.namespace == "aten" and operation not in _OTHERS:
        return None
    factors = tensors[1:] if operation.startswith(("add", "baddb", "_add")) else tensors
    if not factors or (operation == "bmm" and factors[0].shape[-1] == 1):
        return None
    name = operation if func.namespace == "aten" else f"{func.namespace}.{operation}"
    return Product(name, tuple(tuple(factor.shape) for factor in factors[:2]), factors[0].dtype)


@cache
def _found_out(product: Product, num_threads: int) -> int | None:
    """The same for any number of rows, computed by so many threads; found out once a process."""
    is_linear, (num_inputs,) = product.operation == "linear", product.shapes[0]
    num_outputs = product.shapes[1][0 if is_linear else 1]
    weight = mirrored(num_outputs, num_inputs, product.dtype)
    if is_linear == product.is_transposed:
        weight = weight.t().contiguous().t()
    bias = torch.zeros(num_outputs, dtype=product.dtype) if product.has_bias else None

    def multiply(rows: torch.Tensor) -> torch.Tensor:
        if is_linear:
            return torch.nn.functional.linear(rows, weight, bias)
        return torch.matmul(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())

    with torch.inference_mode():
        return row_multiple(multiply, num_inputs, num_outputs, product.dtype)
