"""Write the bench model: the published Qwen3-0.6B shape with seeded random weights and a small byte-level tokenizer.

    python tests/bench/make_model.py DIR

Speed depends on a model's shape and not on what it has learned, so no download is needed: 596 million parameters,
1.2 GB in bfloat16. A chat template makes it servable by the whole mesh. Knows nothing about the mesh.
"""

import argparse
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

VOCABULARY_SIZE = 151_936
MERGED_VOCABULARY_SIZE = 8_000
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main(argv: list[str] | None = None) -> int:
    """Write the model to the folder named on the command line, unless it is there already."""
    parser = argparse.ArgumentParser(description="Write the bench model: Qwen3-0.6B shape, seeded random weights.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    if (folder / "complete").exists():
        return 0
    write_bench_model(folder)
    (folder / "complete").touch()
    return 0


def write_bench_model(folder: Path) -> None:
    """Write weights (safetensors, bfloat16), configuration and tokenizer to ``folder``."""
    _write_weights(folder)
    _write_tokenizer(folder)


def _write_weights(folder: Path) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960,
        rms_norm_eps=1e-6, tie_word_embeddings=True, dtype=torch.bfloat16,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        eos_token_id=2, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def _write_tokenizer(folder: Path) -> None:
    """Train byte pairs on the standard library's own sources: text that every machine has.

    The model's output layer knows more ids than training gives; the rest join the vocabulary as tokens (``<n>``) that
    no merge leads to, so that whatever the random weights choose is text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    written = json.loads(tokenizer.to_str())
    vocabulary = written["model"]["vocab"]
    vocabulary |= {f"<{token_id}>": token_id for token_id in range(len(vocabulary), VOCABULARY_SIZE)}
    tokenizer = Tokenizer.from_str(json.dumps(written))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder)


def _corpus() -> Iterator[str]:
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:150]
    return (path.read_text(encoding="utf-8", errors="replace") for path in paths)


if __name__ == "__main__":
    raise SystemExit(main())
