"""Vectors are those of transformers with each pooling written out plainly, alone and in any batch."""

import random

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.embedding.startup import load_encoder
from serin_worker.errors import ModelRefused
from serin_worker.testing import TINY_CONTEXT, TINY_DIMENSIONS, TINY_VOCABULARY, write_tiny_encoder
from transformers import AutoModel

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")


def some_inputs(seed: int, lengths) -> list[list[int]]:
    """Inputs of random ids."""
    rng = random.Random(seed)
    return [[rng.randrange(TINY_VOCABULARY) for _ in range(length)] for length in lengths]


def plainly(model, ids: list[int], pooling: str) -> torch.Tensor:
    """The vector of one input, computed as its definition says."""
    with torch.inference_mode():
        rows = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    if pooling == "cls":
        return rows[0]
    if pooling == "lasttoken":
        return rows[-1]
    if pooling == "max":
        return torch.stack([row.max() for row in rows.T])
    if pooling == "weightedmean":
        weights = [at + 1 for at in range(len(ids))]
        return sum(weight * row for weight, row in zip(weights, rows, strict=True)) / sum(weights)
    return sum(rows) / (len(ids) if pooling == "mean" else len(ids) ** 0.5)


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
@pytest.mark.parametrize("normalizes", [False, True])
def test_vectors_are_those_of_transformers(tmp_path, kind, normalizes):
    """Every pooling, joined in one model: each input alone, and all of them in one padded batch."""
    folder = write_tiny_encoder(tmp_path, kind, poolings=POOLINGS, normalizes=normalizes)
    encoder, about = load_encoder(folder, EngineConfig())
    assert about.bounds.num_dimensions == len(POOLINGS) * TINY_DIMENSIONS
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    inputs = some_inputs(1, (1, 2, 5, 17, 64, TINY_CONTEXT))
    wanted = torch.stack([torch.cat([plainly(model, ids, pooling) for pooling in POOLINGS]) for ids in inputs])
    if normalizes:
        wanted = wanted / wanted.norm(dim=1, keepdim=True)
    together = encoder.encode(inputs)
    alone = torch.cat([encoder.encode([ids]) for ids in inputs])
    torch.testing.assert_close(together, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, wanted, atol=1e-5, rtol=1e-5)


def test_a_shorter_vector_is_the_beginning_scaled_again(tmp_path):
    """Truncated, then scaled to length 1; a model that does not scale only truncates."""
    for normalizes in (True, False):
        folder = write_tiny_encoder(tmp_path / str(normalizes), normalizes=normalizes)
        encoder, _ = load_encoder(folder, EngineConfig())
        whole = encoder.encode(some_inputs(2, (9,)))
        short = encoder.shorten(whole, 16)
        wanted = whole[:, :16] / whole[:, :16].norm() if normalizes else whole[:, :16]
        torch.testing.assert_close(short, wanted)


def test_half_precision_comes_near(tmp_path):
    """In bfloat16 a vector points nearly where it does in float32."""
    folder = write_tiny_encoder(tmp_path)
    inputs = some_inputs(3, (4, 30))
    exact, _ = load_encoder(folder, EngineConfig())
    rounded, about = load_encoder(folder, EngineConfig(precision="bfloat16"))
    assert about.precision == "bfloat16"
    similarity = (exact.encode(inputs) * rounded.encode(inputs)).sum(dim=1)
    assert bool((similarity > 0.99).all())


def test_weights_that_are_no_numbers_are_named(tmp_path):
    """A tensor with NaN is found at the start."""
    from safetensors.torch import load_file, save_file

    folder = write_tiny_encoder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"encoder\.layer\.1\.output\.dense\.weight.*NaN"):
        load_encoder(folder, EngineConfig())


def test_a_head_is_left_out_and_a_missing_pooler_is_not_missed(tmp_path):
    """A checkpoint of the whole language model, names with the body's prefix, gives the same vectors."""
    from safetensors.torch import load_file, save_file

    folder = write_tiny_encoder(tmp_path)
    inputs = some_inputs(4, (5, 11))
    before = load_encoder(folder, EngineConfig())[0].encode(inputs)
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"bert.{name}": tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    renamed["cls.predictions.bias"] = torch.zeros(TINY_VOCABULARY)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    encoder, _ = load_encoder(folder, EngineConfig())
    torch.testing.assert_close(encoder.encode(inputs), before)
    lacking = {name: tensor for name, tensor in renamed.items() if "layer.1.output.dense.weight" not in name}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match="lacks tensor"):
        load_encoder(folder, EngineConfig())
