"""Which 8 bits a model's linear layers run in: what was asked, what the checkpoint holds, what the device can.

Knows nothing about how.
"""

from serin_worker.config import BadConfig, EngineConfig, Quantization
from serin_worker.model.checkpoint import Checkpoint


def quantization_of(checkpoint: Checkpoint, config: EngineConfig, precision: str) -> Quantization:
    """What is made of a checkpoint's linear layers.

    Weights that are held by block count as plain ones: they are made into ``precision``, and into 8 bits if asked.

    Raises:
        BadConfig: the checkpoint holds something else than what is asked, or the device cannot.
    """
    stored = checkpoint.quantization
    if stored is None or stored.block is not None:
        wanted = config.quantize
    else:
        if config.quantize not in ("none", stored.kind):
            accepted = f"none or {stored.kind}, which the checkpoint's weights are in"
            raise BadConfig("quantize", config.quantize, accepted)
        wanted = stored.kind
    if wanted == "fp8" and config.device == "cpu" and precision == "float16":
        raise BadConfig("precision", precision, "bfloat16 or float32: products of fp8 on the CPU overflow it")
    return wanted
