"""A model folder with seeded random weights that is served in seconds and never stops by itself.

Its greedy answers are printable text without an end id, so a stream lasts exactly as long as a test asks. Knows
nothing about the mesh.
"""

from pathlib import Path

CONTEXT_LENGTH = 16_384
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a Qwen3-shaped model of about 100,000 parameters with a byte-level tokenizer; returns ``folder``."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    vocabulary = _write_tokenizer(folder)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=False, initializer_range=0.2,
            eos_token_id=vocabulary["<|im_end|>"], pad_token_id=vocabulary["<|endoftext|>"], bos_token_id=None,
        )
    )  # fmt: skip
    printable = {chr(code) for code in range(0x21, 0x7F)} | {"Ġ"}  # Ġ is how byte-level tokenizers write a space
    with torch.no_grad():
        for token, token_id in vocabulary.items():
            if token not in printable:
                model.lm_head.weight[token_id] = 0.0
    model.save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Write a tokenizer of one id per byte; returns token -> id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(folder)
    return vocabulary
