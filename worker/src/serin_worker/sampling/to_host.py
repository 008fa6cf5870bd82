"""Several small results of a step brought to the host by one copy: every copy waits for the device.

Knows nothing about what they are.
"""

from collections.abc import Sequence

import torch


def to_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of one device on the CPU: floating point numbers in float32, integers (below 2^31) in int32."""
    words = [tensor.to(torch.float32 if tensor.is_floating_point() else torch.int32) for tensor in tensors]
    return words if all(tensor.device.type == "cpu" for tensor in words) else by_one_copy(words)


def by_one_copy(words: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same of tensors whose numbers have 32 bits, wherever they are."""
    whole = torch.cat([tensor.contiguous().view(torch.int32).flatten() for tensor in words]).cpu()
    parts = torch.split(whole, [tensor.numel() for tensor in words])
    return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, words, strict=True)]
