"""The demo models' shapes: Qwen3's architecture, small enough to learn in minutes on two cores.

Knows nothing about questions or training.
"""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from serin_worker.demo.tokenizer import END_OF_TEXT, MAX_POSITIONS, TOKEN_IDS, TURN_END, VOCABULARY_SIZE

HEAD_SIZE = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes one family of demo models larger than another.

    Attributes:
        width: of the residual stream; ``inner_width``: of each feed-forward layer.
        num_heads: of 32 each, sharing ``num_kv_heads``.
    """

    width: int
    inner_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int

    @property
    def multiplications_per_token(self) -> int:
        """Multiply-adds of all matrices for one token; attention itself, which grows with the context, is left out."""
        heads = HEAD_SIZE * (2 * self.num_heads + 2 * self.num_kv_heads)
        return self.num_layers * self.width * (heads + 3 * self.inner_width) + VOCABULARY_SIZE * self.width


SHAPES = {"small": Shape(192, 512, 4, 6, 2), "mini": Shape(96, 256, 3, 3, 1)}
"""By family: about 1.6 and 0.3 million parameters."""


def build_config(family: str = "small") -> Qwen3Config:
    """The configuration of a family's models."""
    shape = SHAPES[family]
    return Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=HEAD_SIZE,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=TOKEN_IDS[TURN_END],
        pad_token_id=TOKEN_IDS[END_OF_TEXT],
        dtype="float32",
    )


def build_model(seed: int, family: str = "small") -> Qwen3ForCausalLM:
    """A fresh model in float32 whose weights are drawn from the seed."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(build_config(family))
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[TOKEN_IDS[TURN_END], TOKEN_IDS[END_OF_TEXT]], pad_token_id=TOKEN_IDS[END_OF_TEXT]
    )
    return model
