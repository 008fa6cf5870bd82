"""Every operation that torch computes in a block goes through a function. Knows nothing about which ones there are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Through(TorchDispatchMode):
    """A block whose operations are what ``compute(operation, args, kwargs)`` makes of them."""

    def __init__(self, compute: Callable[[torch._ops.OpOverload, Sequence[Any], Mapping[str, Any]], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._compute = compute

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self._compute(func, args, kwargs or {})
