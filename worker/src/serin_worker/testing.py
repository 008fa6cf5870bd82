"""Public twins for tests: tiny random models on disk, an engine without a model, and a loop that runs it dry.

``TokenCacheRunner`` keeps token ids where a model keeps keys and values, and its next token is a pure function of
everything it reads back through the block table: a wrong block, a lost copy or a stale prefix changes the answer.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from serin_worker.batch import StepPlan, Work
from serin_worker.blocks import BlockPool
from serin_worker.bounds import Bounds
from serin_worker.engine import Engine
from serin_worker.flight import TokensAhead
from serin_worker.limits import Limits
from serin_worker.outputs import Delta, Output
from serin_worker.runner import StepLogits

TinyKind = Literal["llama", "qwen3", "mistral", "gemma2"]
TINY_VOCABULARY = 199
TINY_CONTEXT = 256
TINY_WINDOW = 13


def write_tiny_model(folder: Path, kind: TinyKind = "llama", seed: int = 0, end_id: int | None = None) -> Path:
    """Write a seeded random model of 100,000 parameters to a folder, in float32; returns the folder."""
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        LlamaConfig,
        MistralConfig,
        PreTrainedConfig,
        Qwen3Config,
    )

    shape: dict[str, Any] = {
        "vocab_size": TINY_VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": TINY_CONTEXT,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": None,
    }
    configs: dict[TinyKind, PreTrainedConfig] = {
        "llama": LlamaConfig(**shape),
        "qwen3": Qwen3Config(**shape, tie_word_embeddings=True),
        "mistral": MistralConfig(**shape, sliding_window=TINY_WINDOW),
        "gemma2": Gemma2Config(**shape, sliding_window=TINY_WINDOW, query_pre_attn_scalar=16),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModelForCausalLM
        model = factory.from_config(configs[kind], dtype=torch.float32)
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


EncoderKind = Literal["bert", "qwen3"]
TINY_DIMENSIONS = 64


def write_tiny_encoder(
    folder: Path,
    kind: EncoderKind = "bert",
    seed: int = 0,
    *,
    poolings: Sequence[str] = ("mean",),
    normalizes: bool = True,
    max_tokens: int | None = None,
) -> Path:
    """Write a seeded random embedding model to a folder, described as sentence-transformers does; returns the folder.

    Args:
        folder: where.
        kind: an encoder, or a causal model as Qwen3-Embedding is one.
        seed: of the weights.
        poolings: names as in newer descriptions.
        normalizes: whether vectors are scaled to length 1.
        max_tokens: longest input as the description says; None: it does not.
    """
    from transformers import AutoModel, BertConfig, PreTrainedConfig, Qwen3Config

    shape: dict[str, Any] = {
        "vocab_size": TINY_VOCABULARY,
        "hidden_size": TINY_DIMENSIONS,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TINY_CONTEXT,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    configs: dict[EncoderKind, PreTrainedConfig] = {
        "bert": BertConfig(**shape),
        "qwen3": Qwen3Config(**shape, num_key_value_heads=2, head_dim=16, bos_token_id=None, eos_token_id=None),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModel
        model = factory.from_config(configs[kind], dtype=torch.float32)
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalizes else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": TINY_DIMENSIONS, "pooling_mode": list(poolings)}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if max_tokens is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    return folder


def _write_tokenizer(folder: Path) -> None:
    """A vocabulary of words ``w0`` to ``w198``, so that the folder is complete."""
    words = {f"w{number}": number for number in range(TINY_VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


class TokenCacheRunner:
    """A runner whose cache holds token ids and whose next token is :meth:`next_token` of all of them, or a window's."""

    def __init__(self, num_blocks: int, block_size: int, vocabulary_size: int, window: int = 0) -> None:
        self._pages = [[-1] * block_size for _ in range(num_blocks)]
        self._block_size = block_size
        self._vocabulary_size = vocabulary_size
        self._window = window
        self.num_computed_tokens = 0
        self.num_moves = 0

    def run(self, plan: StepPlan, ahead: TokensAhead | None = None) -> StepLogits:
        """Copy, write and read back token ids; logits point at the next token."""
        last = None if ahead is None else ahead.read_by(plan).tolist()
        for source, target in plan.copies:
            self._pages[target] = list(self._pages[source])
        rows: list[tuple[Work, slice]] = []
        tokens: list[int] = []
        for at, work in enumerate(plan.work):
            self._write(work, None if last is None else last[at])
            num_rows = work.num_scored or int(bool(work.drawn))
            end = work.start + work.num_tokens
            if num_rows:
                rows.append((work, slice(len(tokens), len(tokens) + num_rows)))
                tokens += [self._read(work, position) for position in range(end - num_rows + 1, end + 1)]
        logits = torch.zeros((len(tokens), self._vocabulary_size))
        logits[range(len(tokens)), tokens] = 10.0
        return StepLogits(logits, rows)

    def next_token(self, token_ids: Sequence[int]) -> int:
        """The token after these, for whoever checks."""
        seen = token_ids[-self._window :]
        digest = hashlib.blake2b(struct.pack(f"<{len(seen)}i", *seen), digest_size=4).digest()
        return int.from_bytes(digest, "little") % self._vocabulary_size

    def _write(self, work: Work, last: int | None) -> None:
        self.num_computed_tokens += work.num_tokens
        for position in range(work.start, work.start + work.num_tokens):
            page = self._pages[work.sequence.blocks[position // self._block_size]]
            page[position % self._block_size] = work.sequence.token_ids[position] if last is None else last

    def _read(self, work: Work, length: int) -> int:
        blocks, size = work.sequence.blocks, self._block_size
        first = max(0, length - self._window) if self._window else 0
        return self.next_token([self._pages[blocks[at // size]][at % size] for at in range(first, length)])


def engine_without_model(
    num_blocks: int = 64,
    block_size: int = 4,
    vocabulary_size: int = 50,
    max_num_sequences: int = 8,
    max_num_tokens: int = 32,
    end_ids: frozenset[int] = frozenset(),
    window: int = 0,
    *,
    runs_ahead: bool = False,
) -> tuple[Engine, TokenCacheRunner]:
    """An engine over a :class:`TokenCacheRunner`: everything is real but the numbers."""
    runner = TokenCacheRunner(num_blocks, block_size, vocabulary_size, window)
    limits = Limits(block_size, max_num_sequences, max_num_tokens, max_num_scored=8, window=window)
    bounds = Bounds(10_000, vocabulary_size, end_ids)
    return Engine(runner, BlockPool(num_blocks), limits, bounds, runs_ahead=runs_ahead), runner


def run_dry(engine: Engine) -> dict[str, list[Output]]:
    """Step until nothing is left; outputs by request id."""
    outputs: dict[str, list[Output]] = {}
    while engine.has_work:
        for request_id, output in engine.step():
            outputs.setdefault(request_id, []).append(output)
    return outputs


def tokens_of(outputs: Sequence[Output], choice_index: int = 0) -> list[int]:
    """All tokens of a choice, in order."""
    return [
        token
        for output in outputs
        if isinstance(output, Delta) and output.choice_index == choice_index
        for token in output.token_ids
    ]
