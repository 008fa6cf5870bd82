"""How an engine runs: bounds, memory, precision. Checked when made; never changes.

Knows nothing about settings files or flags.
"""

from dataclasses import dataclass
from typing import Literal

from serin_mesh.engine_ranges import BLOCK_TOKENS, DEFAULT_SEQUENCES, SHORT_REQUEST_TOKENS

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Numerics = Literal["auto", "fast", "invariant"]
Quantization = Literal["none", "int8", "fp8"]


class BadConfig(ValueError):
    """A value that the engine cannot run with: the field's name, the value, what is accepted instead."""

    def __init__(self, field: str, value: int | str, accepted: str) -> None:
        super().__init__(f"{field} is {value}; accepted: {accepted}")
        self.field = field
        self.value = value
        self.accepted = accepted


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an engine is told beside its model."""

    precision: Precision = "auto"
    """``auto``: what most of the weights were saved in."""
    quantize: Quantization = "none"
    """``int8``, ``fp8``: weights of linear layers and the rows they are given, in 8 bits; the rest stays in
    ``precision``. ``none``: as the checkpoint holds them."""
    numerics: Numerics = "auto"
    """``invariant``: identical tokens alone, in any batch, after preemption and after resume. ``auto``: that, where the
    model can; ``fast`` otherwise."""
    device: str = "cpu"
    block_size: int = BLOCK_TOKENS
    """Tokens in a KV block; a multiple of 16."""
    kv_bytes: int | None = None
    """Memory for KV blocks; None: what all sequences can use, at most 30 % (CUDA: 90 %) of what is free."""
    num_blocks: int | None = None
    """Exact number of KV blocks, instead of ``kv_bytes``."""
    max_num_batched_tokens: int | None = None
    """Most tokens computed in a step; None: 512 on the CPU, 8192 on CUDA."""
    max_num_sequences: int = DEFAULT_SEQUENCES
    max_num_waiting: int = 1024
    context_length: int | None = None
    """Most tokens of a sequence; None: what the model was made for."""
    num_threads: int | None = None
    """Threads of the CPU kernels, at most one for each processor; None: one for a small model, otherwise torch's own
    choice."""

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
        if self.block_size % BLOCK_TOKENS:
            raise BadConfig("block_size", self.block_size, f"a multiple of {BLOCK_TOKENS}")
        if self.token_budget < self.max_num_sequences:
            accepted = f"{self.max_num_sequences} or more, so that each of as many sequences gets its token"
            raise BadConfig("max_num_batched_tokens", self.token_budget, accepted)
        if self.context_length is not None:  # else it takes the model to tell
            self.check_num_blocks(self.context_length)

    @property
    def token_budget(self) -> int:
        """Most tokens computed in a step."""
        if self.max_num_batched_tokens is not None:
            return self.max_num_batched_tokens
        return max(8192 if self.device.startswith("cuda") else 512, self.max_num_sequences)

    def check_num_blocks(self, num_positions: int) -> None:
        """Refuse a number of KV blocks that is of no use for a model with so many positions.

        Raises:
            BadConfig: with the least that is.
        """
        least = self.least_num_blocks(num_positions)
        if self.num_blocks is not None and self.num_blocks < least:
            raise BadConfig("num_blocks", self.num_blocks, f"{least} or more, {self.least_cache(num_positions)}")

    def least_num_blocks(self, num_positions: int) -> int:
        """KV blocks that hold one sequence of the asked context; none asked: a short one, however long they may be."""
        return -(-self._least_num_tokens(num_positions) // self.block_size)

    def least_cache(self, num_positions: int) -> str:
        """Why no fewer will do, for people."""
        what = "a sequence of context_length" if self.context_length is not None else "a short sequence"
        num_tokens = self._least_num_tokens(num_positions)
        return f"so that {what} fits: {num_tokens} tokens, {self.block_size} in a block (block_size)"

    def _least_num_tokens(self, num_positions: int) -> int:
        return self.context_length or min(SHORT_REQUEST_TOKENS, num_positions)

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise BadConfig(name, value, f"{least} or more")
