"""Model folders that must not be served are refused before anything is, with the file's name."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from serin_worker.config import EngineConfig
from serin_worker.errors import ModelRefused
from serin_worker.model import checkpoint, hub, loading
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.digests import weights_digest
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, run_dry, tokens_of
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

FLOAT32 = EngineConfig(precision="float32", num_blocks=8)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of a tiny model that a test may damage."""
    return shutil.copytree(tiny_folder("llama"), tmp_path / "model")


def refusal(folder) -> ModelRefused:
    """Why the folder is not served."""
    with pytest.raises(ModelRefused) as caught:
        load_engine(str(folder), FLOAT32)
    return caught.value


def test_a_good_folder_is_described(folder):
    """Shapes and sizes come from headers alone."""
    found = checkpoint.inspect(folder)
    assert found.config["model_type"] == "llama"
    assert found.num_parameters * 4 < found.weight_bytes
    assert found.tensors["model.norm.weight"].shape == (64,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl", "last.ckpt"])
def test_pickled_weights(folder, name):
    """Pickles can run code: refused even beside safetensors."""
    (folder / name).write_bytes(b"\x80\x04")
    error = refusal(folder)
    assert error.file == str(folder / name)
    assert "pickled" in str(error)


def test_custom_code(folder):
    """A configuration that brings its own code is refused."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    error = refusal(folder)
    assert error.file == str(path)
    assert "own code" in str(error)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", checkpoint.INDEX_NAME])
def test_json_that_is_nested_too_deep(name, folder):
    """Named, as any other damage is."""
    (folder / name).write_text("[" * 100_000)
    error = refusal(folder)
    assert error.file == str(folder / name)
    assert "RecursionError" in str(error)


def test_a_configuration_that_differs_by_layer(folder):
    """Transformers raises where a number is asked for that every layer has for itself."""
    AutoConfig.for_model("gemma4_unified_text").save_pretrained(folder)
    error = refusal(folder)
    assert error.file == str(folder / "config.json")
    assert "model_type 'gemma4_unified_text' cannot be read: AmbiguousGlobalPerLayerAttributeError: " in str(error)


def test_a_truncated_file(folder):
    """A half-downloaded file is recognised by its header."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    error = refusal(folder)
    assert error.file == str(path)
    assert "truncated" in str(error)


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 5) + b"{oops"])
def test_a_file_that_is_no_safetensors(folder, content):
    """Anything else in a weight file's place is refused without reading further."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    assert refusal(folder).file == str(path)


def test_a_misshapen_tensor(folder):
    """A tensor that does not fit the configuration is named."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.ones(65)
    save_file(tensors, path, metadata={"format": "pt"})
    error = refusal(folder)
    assert error.file == str(path)
    assert "'model.norm.weight' has shape (65,) where the configuration asks for (64,)" in str(error)


def test_a_missing_tensor(folder):
    """A checkpoint with a hole is not filled with random numbers."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    error = refusal(folder)
    assert error.file == str(path)
    assert "model.layers.1.mlp.up_proj.weight" in str(error)


def test_shards(folder):
    """A sharded checkpoint loads; a missing shard and a tensor that the index misplaces are named."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    index = folder / checkpoint.INDEX_NAME
    weight_map = {name: file for file, members in parts.items() for name in members}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    load_engine(str(folder), FLOAT32)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map | {"extra": "two.safetensors"}}))
    assert "lacks tensor 'extra'" in str(refusal(folder))
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "two.safetensors").unlink()
    assert refusal(folder).file == str(folder / "two.safetensors")


def test_files_that_are_missing(tmp_path):
    """No folder, no configuration, no weights: each says so."""
    assert "no such folder" in str(refusal(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").file == str(tmp_path / "empty" / "config.json")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "llama"}')
    assert "has no weights" in str(refusal(tmp_path / "empty"))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_end_ids_outside_the_vocabulary(file, folder, caplog):
    """Nothing can draw them: they are left out with a word, and asking for min_tokens does not end the engine."""
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {"eos_token_id": [2, TINY_VOCABULARY, 10**6, -1]}))
    if file == "config.json":
        (folder / "generation_config.json").unlink(missing_ok=True)
    engine, _ = load_engine(str(folder), FLOAT32)
    assert engine.bounds.end_ids == {2}
    (said,) = [record.getMessage() for record in caplog.records if "eos_token_id" in record.getMessage()]
    assert said.startswith(f"{path}: eos_token_id names -1, {TINY_VOCABULARY}, 1000000, outside the vocabulary of")
    only_the_last = Sampling(temperature=0, logit_bias={TINY_VOCABULARY - 1: 100.0})  # what an id of -1 would mask
    engine.add(GenerationRequest("a", [1, 2, 3], only_the_last, Stopping(max_tokens=4, min_tokens=4)))
    assert tokens_of(run_dry(engine)["a"]) == [TINY_VOCABULARY - 1] * 4


def test_an_architecture_that_does_not_attend_through_the_interface(tmp_path):
    """A model with recurrent layers, or of no known kind, is refused by name."""
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    assert "'vit' is not a causal language model" in str(refusal(tmp_path))


def test_recurrent_layers_are_refused(tmp_path):
    """A model whose layers keep a state that is not keys and values cannot be served, and is not half served."""
    from transformers import MambaConfig

    config = MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert "layers of type ['linear_attention']" in str(refusal(tmp_path))


def test_progress_reaches_the_end(folder):
    """Every stage reports fractions that grow to 1."""
    seen: dict[str, list[float]] = {}
    load_engine(str(folder), FLOAT32, lambda stage, fraction: seen.setdefault(stage, []).append(fraction))
    assert set(seen) == {"hashing", "loading", "preparing", "checking"}
    for fractions in seen.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


def test_the_digest_follows_the_content(folder, tmp_path):
    """Equal files have equal digests wherever they are; a changed byte changes it, a remembered digest does not lie."""
    cache = tmp_path / "cache"
    first = weights_digest(checkpoint.inspect(folder), cache)
    assert weights_digest(checkpoint.inspect(folder), cache) == first
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert weights_digest(checkpoint.inspect(copy), cache) == first
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights_digest(checkpoint.inspect(folder), cache) != first


def test_a_digest_cache_that_cannot_be_written_only_costs_time(folder, tmp_path):
    """A file in the cache folder's place changes nothing."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    assert weights_digest(checkpoint.inspect(folder), blocked) == weights_digest(checkpoint.inspect(folder), blocked)


def test_a_name_that_is_no_hub_id():
    """A path that does not exist and cannot be a hub id is not looked up anywhere."""
    with pytest.raises(ModelRefused, match="no such folder"):
        hub.locate("/no/such/model")


def test_older_architectures_with_learned_positions(tmp_path):
    """GPT-2: no rotary embedding, biases, one projection for queries, keys and values."""
    model = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=60, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None)
    )
    model.save_pretrained(tmp_path)
    described = loading.describe(checkpoint.inspect(tmp_path), "float32")
    shape = CausalModel(loading.load(described, torch.device("cpu"))).shape
    assert (shape.context_length, shape.vocabulary_size, len(shape.layers)) == (64, 60, 2)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "has no weights"),
        (("model-q4.gguf",), "has weights as GGUF alone (model-q4.gguf)"),
        (("model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"), "has model-00001-of-00002.safet"),
        (("other.safetensors",), "has other.safetensors, and no index"),
    ],
)
def test_weights_under_other_names(folder, names, said):
    """What is there, and which names are read."""
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(weights)
    text = str(refusal(folder))
    assert text.startswith(f"{folder}: {said}")
    assert text.endswith("; accepted: model.safetensors, or shards beside model.safetensors.index.json")
