"""Small real tokenizers of every kind that causal language models use, made here and saved as model folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox runs on and on.",
    "Zürich, Köln, naïve café, smörgåsbord, “quotes”, 3.14159, 1,000,000 and 42%.",
    "你好，世界。今天天气很好，我们去公园。 こんにちは世界。 안녕하세요 세계.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3\n",
    "🙂🙃👩‍👩‍👧‍👦 emoji and ZWJ, मराठी हिन्दी, العربية עברית",
] * 3

CHATML = """{%- if tools %}
{{- '<|im_start|>system\\nTools:' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}{% generation %}{{- message.content | default('') }}
        {%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function | tojson(indent=2)) + '</tool_call>' }}
        {%- endfor %}{{- '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
    {%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>' }}{% endif %}
{%- endif %}"""

TURNS = """{{ bos_token }}{% set ns = namespace(last='') %}{% for message in messages %}
{%- if message['role'] == ns.last %}
{{- raise_exception('Turns must alternate, but ' ~ message['role'] ~ ' came twice') }}
{%- endif %}
{%- set ns.last = message['role'] %}
{%- if message['role'] == 'tool' %}{% continue %}{% endif %}
{%- if message['role'] == 'user' %} [INST] {{ message['content'] | trim }} [/INST]
{%- else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}
{%- endfor %}"""

PARTS = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content %}[{{ part.text }}]{% endfor %}
{%- endif %}<|im_end|>
{% endfor %}{% for d in documents or [] %}({{ loop.index }}: {{ d.title }}){% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN_ADDED = ["<tool_call>", "</tool_call>", "<think>", "</think>"]


def byte_level() -> Tokenizer:
    """As Qwen and Llama 3: byte-level BPE, special and plain added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: SentencePiece-like BPE whose unknown characters become byte tokens."""
    special = ["<unk>", "<s>", "</s>"]
    first = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    first.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    first.train_from_iterator(
        CORPUS[:2] * 3,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, limit_alphabet=60, show_progress=False),
    )
    trained = json.loads(first.to_str())["model"]
    names = special + [f"<0x{byte:02X}>" for byte in range(256)]
    names += [token for token in trained["vocab"] if token not in special]
    vocab = {token: token_id for token_id, token in enumerate(names)}
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = first.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def metaspace() -> Tokenizer:
    """As T5-like unigram models: words begin with a mark."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=320, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT: the decoder looks at neighbours, so there is no piece table."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    )
    return tokenizer


def characters() -> Tokenizer:
    """One id a character, as tiny models have it."""
    special = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|answer|>"]
    vocab = {token: token_id for token_id, token in enumerate([*special, *sorted(set("".join(CORPUS)))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    return tokenizer


KINDS = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "metaspace": metaspace,
    "word_piece": word_piece,
    "characters": characters,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "byte_level": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML},
    "byte_fallback": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "chat_template": TURNS,
    },
    "metaspace": {"eos_token": "</s>", "unk_token": "<unk>", "add_eos_token": True},
    "word_piece": {"unk_token": "[UNK]", "eos_token": "[SEP]"},
    "characters": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
}


def save(folder: Path, tokenizer: Tokenizer, config: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Path:
    """Write a model folder's text files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    whole = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(whole))
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def make(kind: str, folder: Path, **changes: Any) -> Path:
    """A model folder of one kind; ``changes`` go into its configuration."""
    return save(folder / kind, KINDS[kind](), {**CONFIGS[kind], **changes})
