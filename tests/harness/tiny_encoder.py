"""A model folder with seeded random weights that computes embeddings, with a BERT's tokenizer: [CLS] text [SEP].

Knows nothing about the mesh.
"""

import json
from pathlib import Path

VECTORS = "vectors"
DIMENSIONS = 32
MAX_TOKENS = 48
"""Longest input, [CLS] and [SEP] included; a character is a token."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_tiny_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Write a BERT-shaped model of some 20,000 parameters, described as sentence-transformers does; returns it."""
    import torch
    from transformers import BertConfig, BertModel

    vocabulary_size = _write_tokenizer(folder)
    torch.manual_seed(seed)
    BertModel(
        BertConfig(
            vocab_size=vocabulary_size, hidden_size=DIMENSIONS, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": DIMENSIONS, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}))
    return folder


def _write_tokenizer(folder: Path) -> int:
    """Write a WordPiece tokenizer that knows printable characters; returns the number of its ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(0x21, 0x7F)]
    words = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece(vocab={word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.enable_truncation(8)  # as saved by training scripts; texts must not be cut by it
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return len(words)
