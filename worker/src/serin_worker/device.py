"""The device that an engine is told to run on, if this machine has it.

Knows nothing about models.
"""

import torch

from serin_worker.config import BadConfig, EngineConfig


def device_of(config: EngineConfig) -> torch.device:
    """The device of a configuration, found and ready.

    Raises:
        BadConfig: torch cannot use it here; with torch's own words and what would be accepted.
    """
    device = torch.device(config.device)
    if device.type != "cuda":
        return device
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0].rstrip(".")
        raise BadConfig(
            "device", config.device, f'cpu, since torch says "{why}"; for cuda install its driver and a torch with CUDA'
        ) from error
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        names = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise BadConfig("device", config.device, f"{names}, the GPUs that torch sees here, or cpu")
    return device
