"""How an engine runs: bounds, memory, precision. Checked when made; never changes.

Knows nothing about settings files or flags.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Numerics = Literal["auto", "fast", "invariant"]
Quantization = Literal["none", "int8"]


class BadConfig(ValueError):
    """A value that the engine cannot run with; names the field."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an engine is told beside its model."""

    precision: Precision = "auto"
    """``auto``: what most of the weights were saved in."""
    quantize: Quantization = "none"
    """``int8``: weights of linear layers and the rows they are given, in 8 bits; the rest stays in ``precision``."""
    numerics: Numerics = "auto"
    """``invariant``: identical tokens alone, in any batch, after preemption and after resume. ``auto``: that, where the
    model can; ``fast`` otherwise."""
    device: str = "cpu"
    block_size: int = 16
    """Tokens in a KV block; a multiple of 16."""
    kv_bytes: int | None = None
    """Memory for KV blocks; None: what all sequences can use, at most 30 % (CUDA: 90 %) of what is free."""
    num_blocks: int | None = None
    """Exact number of KV blocks, instead of ``kv_bytes``."""
    max_num_batched_tokens: int | None = None
    """Most tokens computed in a step; None: 512 on the CPU, 8192 on CUDA."""
    max_num_sequences: int = 64
    max_num_waiting: int = 1024
    context_length: int | None = None
    """Most tokens of a sequence; None: what the model was made for."""
    num_threads: int | None = None
    """Threads of the CPU kernels; None: one for a small model, otherwise torch's own choice."""

    def __post_init__(self) -> None:
        """Refuse values that make no engine.

        Raises:
            BadConfig: names field, value and what is accepted.
        """
        for name in ("block_size", "max_num_sequences", "max_num_waiting"):
            self._at_least(name, 1)
        for name in ("kv_bytes", "num_blocks", "max_num_batched_tokens", "context_length", "num_threads"):
            if getattr(self, name) is not None:
                self._at_least(name, 1)
        if self.block_size % 16:
            raise BadConfig(f"block_size is {self.block_size}; accepted: a multiple of 16")
        if self.token_budget < self.max_num_sequences:
            raise BadConfig(
                f"max_num_batched_tokens is {self.token_budget}; accepted: {self.max_num_sequences} or more, "
                "so that each of max_num_sequences gets its token"
            )

    @property
    def token_budget(self) -> int:
        """Most tokens computed in a step."""
        if self.max_num_batched_tokens is not None:
            return self.max_num_batched_tokens
        return max(8192 if self.device.startswith("cuda") else 512, self.max_num_sequences)

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise BadConfig(f"{name} is {value}; accepted: {least} or more")
