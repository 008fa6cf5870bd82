"""The demo model's shape: Qwen3's architecture, small enough to learn in minutes on two cores.

Knows nothing about questions or training.
"""

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from serin_worker.demo.tokenizer import END_OF_TEXT, MAX_POSITIONS, TOKEN_IDS, TURN_END, VOCABULARY_SIZE


def build_config() -> Qwen3Config:
    """About 1.6 million parameters: 4 layers, width 192, 6 heads of 32 that share 2 key-value heads."""
    return Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=TOKEN_IDS[TURN_END],
        pad_token_id=TOKEN_IDS[END_OF_TEXT],
        dtype="float32",
    )


def build_model(seed: int) -> Qwen3ForCausalLM:
    """A fresh model in float32 whose weights are drawn from the seed."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(build_config())
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[TOKEN_IDS[TURN_END], TOKEN_IDS[END_OF_TEXT]], pad_token_id=TOKEN_IDS[END_OF_TEXT]
    )
    return model
