"""A decoder layer in one call: the bits of the layer in whose place it stands, and only where it has them."""

from typing import Any

import pytest
import torch
from serin_worker.attention import interface
from serin_worker.attention.layer import StepSequences
from serin_worker.attention.native import NativePagedAttention
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.native_layer import NativeDecoderLayer
from serin_worker.model.native_rope import angles_of
from transformers import AutoConfig, AutoModelForCausalLM

NUM_LAYERS, BLOCK_SIZE, VOCABULARY = 2, 16, 96
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 80,
    "intermediate_size": 112,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.2,
}
STEPS = (
    # rows of each sequence, their lengths afterwards, their blocks
    ([7, 30], [7, 30], [[0, 1], [2, 3]]),
    ([1, 1], [8, 31], [[0, 1], [2, 3]]),
    ([25, 1], [33, 32], [[0, 1, 4], [2, 3, 0]]),
)
PADDING = 3

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def _model(kind: str, dtype: torch.dtype, quantize: str, **changes: Any) -> CausalModel:
    interface.register()
    config = AutoConfig.for_model(kind, **{**SHAPE, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=interface.NAME).eval()
        for name, parameter in made.named_parameters():
            if name.endswith(("norm.weight", "bias")):  # else ones and zeros: nothing would show
                torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    model = CausalModel(made.requires_grad_(False))
    model.prepare(keep_bits=True, quantize=quantize)  # type: ignore[arg-type]
    return model


def _logits(model: CausalModel) -> list[torch.Tensor]:
    """Of every row of some steps, with padding behind them, on fresh pages."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for counts, contexts, tables in STEPS:
        total = sum(counts) + PADDING
        ids = torch.randint(VOCABULARY, (total,), generator=generator)
        positions = torch.cat(
            [torch.arange(last - count, last) for count, last in zip(counts, contexts, strict=True)]
            + [torch.zeros(PADDING, dtype=torch.int64)]
        )
        starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
        sequences = StepSequences(*(torch.tensor(one, dtype=torch.int32) for one in (starts, contexts, tables)))
        found.append(model.forward(ids, positions, sequences, torch.arange(sum(counts))))
    return found


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 20}),
    ],
)
def test_same_bits(kind, changes):
    """Prompts, chunks and decodes of several sequences, in every precision that has kernels."""
    for dtype, quantize in ((torch.bfloat16, "none"), (torch.bfloat16, "int8"), (torch.float32, "int8")):
        model = _model(kind, dtype, quantize, **changes)
        attention = NativePagedAttention(BLOCK_SIZE)
        model.bind(attention, 5, BLOCK_SIZE)
        right = _logits(model)
        assert model.fuse_layers() == NUM_LAYERS
        before = model.num_layers_run
        for one, other in zip(right, _logits(model), strict=True):
            assert torch.equal(one, other)
        assert model.num_layers_run == before + NUM_LAYERS * len(STEPS)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"head_dim": 16}),
        ("gemma2", {}),
        ("granite", {"residual_multiplier": 0.5}),
        ("qwen3", {"hidden_act": "relu"}),
    ],
)
def test_layers_of_another_kind_stay(kind, changes):
    """Heads too narrow for the kernel, norms after each part, multipliers, an activation without a kernel."""
    model = _model(kind, torch.bfloat16, "none", **changes)
    model.bind(NativePagedAttention(BLOCK_SIZE), 5, BLOCK_SIZE)
    right = _logits(model)
    assert model.fuse_layers() == 0
    assert not any(isinstance(module, NativeDecoderLayer) for module in model.module.modules())
    assert all(map(torch.equal, right, _logits(model)))


def test_float32_layers_stay():
    """Their linear layers are no kernels of ours."""
    model = _model("llama", torch.float32, "none")
    model.bind(NativePagedAttention(BLOCK_SIZE), 5, BLOCK_SIZE)
    assert model.fuse_layers() == 0


def test_rows_for_which_there_is_no_memory():
    """The layer says so, and computes what fits as before."""
    model = _model("llama", torch.bfloat16, "none")
    model.bind(NativePagedAttention(BLOCK_SIZE), 5, BLOCK_SIZE)
    assert model.fuse_layers() == NUM_LAYERS
    right = _logits(model)
    layer = next(module for module in model.module.modules() if isinstance(module, NativeDecoderLayer))
    rows, angles = torch.zeros((1, 1, SHAPE["hidden_size"])), torch.zeros((1, 1, SHAPE["head_dim"]))
    step, too_many = layer._attention.step_rows(layer._bound.sequences), 1 << 40  # it stops before it reads them
    with pytest.raises(MemoryError, match="serin_decoder_layer"):
        layer._kernel(layer._parts, step, angles_of(angles, angles), rows.data_ptr(), rows.data_ptr(), too_many)
    assert all(map(torch.equal, right, _logits(model)))
