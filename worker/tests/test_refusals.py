"""Configurations and weights that do not belong together, or are no numbers, are refused by file and name."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.errors import ModelRefused
from serin_worker.startup import load_engine


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of a tiny model that a test may damage."""
    return shutil.copytree(tiny_folder("llama"), tmp_path / "model")


def refusal(folder) -> ModelRefused:
    """Why the folder is not served; always one line."""
    with pytest.raises(ModelRefused) as caught:
        load_engine(str(folder), EngineConfig(precision="float32", num_blocks=8))
    assert "\n" not in str(caught.value)
    return caught.value


def configure(folder, **changes):
    """Change the folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def store(folder, **tensors):
    """Change the folder's weights."""
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})
    return path


def test_a_configuration_with_fewer_layers_than_the_weights(folder):
    """Half of a model is not served as if it were one."""
    configure(folder, num_hidden_layers=1)
    error = refusal(folder)
    assert error.file == str(folder / "model.safetensors")
    assert "'model.layers.1." in str(error)


def test_a_tensor_that_the_model_does_not_know(folder):
    """It is named."""
    path = store(folder, **{"foo.weight": torch.ones(3)})
    assert str(refusal(folder)).startswith(f"{path}: tensor 'foo.weight' has no place")


def test_tensors_that_old_checkpoints_hold(folder):
    """Rotary frequencies were saved once, whatever their type, and are computed now."""
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8), "model.position_ids": torch.arange(8)}
    store(folder, **old)
    load_engine(str(folder), EngineConfig(precision="float32", num_blocks=8))


def test_weights_that_are_whole_numbers(folder):
    """They would be served as if they were the weights that they stand for."""
    name = "model.layers.0.self_attn.q_proj.weight"
    path = store(folder, **{name: torch.ones(64, 64, dtype=torch.int32)})
    assert str(refusal(folder)).startswith(f"{path}: tensor '{name}' is stored as I32; accepted: F64, F32")


def test_quantized_weights(folder):
    """No quantization is supported, and the refusal says what is."""
    path = configure(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    error = refusal(folder)
    assert error.file == str(path)
    assert "'gptq'" in str(error)
    assert "bfloat16" in str(error)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 5, "pad_token_id": 7}, "vocab_size: 5: too small, pad_token_id is 7"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: -1: accepted"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0: accepted"),
        ({"num_hidden_layers": 10**9, "layer_types": None}, "num_hidden_layers: 1000000000: the weights hold only"),
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' expected int"),
        ({"layer_types": ["full_attention"]}, "must be equal to the number of `layer_types` (1)"),
        ({"num_attention_heads": 0}, ""),
        ({"num_key_value_heads": 0}, "num_key_value_heads: 0"),
        ({"max_position_embeddings": -4}, "max_position_embeddings: -4"),
        ({"hidden_act": "evil"}, "evil"),
    ],
)
def test_configurations_that_describe_no_model(folder, changes, said):
    """config.json is named with the cause, in one line."""
    path = configure(folder, **changes)
    error = refusal(folder)
    assert error.file == str(path)
    assert said in str(error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder, bad):
    """The tensor that holds them is named."""
    name = "model.layers.1.mlp.up_proj.weight"
    path = store(folder, **{name: torch.full((96, 64), bad)})
    assert str(refusal(folder)) == f"{path}: tensor '{name}' holds NaN or infinity"


def test_a_tokenizer_that_brings_code(folder):
    """Refused here too, by its file."""
    path = folder / "tokenizer_config.json"
    path.write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')
    assert refusal(folder).file == str(path)


def test_the_process_ends_with_status_2_and_one_line(folder):
    """So that whoever started it does not start it again."""
    path = configure(folder, layer_types=["full_attention"])
    command = [
        sys.executable,
        "-m",
        "serin_worker",
        "--model",
        "m",
        "--model-path",
        str(folder),
        "--log-format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert str(path) in line


def test_a_context_longer_than_the_models_is_refused(tiny_folder):
    """With both numbers: nothing is cut to fit without a word."""
    config = EngineConfig(precision="float32", context_length=100_000)
    with pytest.raises(
        BadConfig, match="context_length is 100000; accepted: 1 to 256, the positions that the model has"
    ):
        load_engine(str(tiny_folder("qwen3")), config)
