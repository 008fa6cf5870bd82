"""Several small results of a step brought to the host by one copy: every copy waits for the device.

Knows nothing about what they are.
"""

from collections.abc import Callable, Sequence

import torch

Arrival = Callable[[], list[torch.Tensor]]
"""Waits until a copy has arrived."""


def to_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of one device on the CPU: floating point numbers in float32, integers (below 2^31) in int32."""
    return begin(tensors)()


def begin(tensors: Sequence[torch.Tensor]) -> Arrival:
    """The same, begun: the copy is behind what the device has been told so far, and before what it is told from now."""
    words = [tensor.to(torch.float32 if tensor.is_floating_point() else torch.int32) for tensor in tensors]
    if all(tensor.device.type == "cpu" for tensor in words):
        return lambda: words
    return begin_copy(words)


def begin_copy(words: Sequence[torch.Tensor]) -> Arrival:
    """The same of tensors whose numbers have 32 bits, wherever they are."""
    whole = torch.cat([tensor.contiguous().view(torch.int32).flatten() for tensor in words])
    is_on_cuda = whole.device.type == "cuda"
    host = torch.empty(whole.shape, dtype=whole.dtype, pin_memory=is_on_cuda)
    host.copy_(whole, non_blocking=True)
    copied = torch.cuda.Event() if is_on_cuda else None  # type: ignore[no-untyped-call]
    if copied is not None:
        copied.record()

    def arrived() -> list[torch.Tensor]:
        if copied is not None:
            copied.synchronize()
        parts = torch.split(host, [tensor.numel() for tensor in words])
        return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, words, strict=True)]

    return arrived
