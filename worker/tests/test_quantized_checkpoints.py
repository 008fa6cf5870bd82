"""Checkpoints whose weights are quantized already, as they are published: served as they are, or refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.errors import ModelRefused
from serin_worker.model import checkpoint, loading
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.int8 import linear_int8
from serin_worker.model.native_linear import Kind, NativeWeights
from serin_worker.startup import load_engine
from transformers import AutoModelForCausalLM

E4M3 = torch.float8_e4m3fn
BLOCK = (32, 48)
IGNORED = "lm_head"
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
FLOAT8 = INT8 | {"type": "float"}


def compressed(weights: dict, rows: dict | None, **changes) -> dict:
    """A compressed-tensors configuration with one group."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": rows, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if weights["type"] == "int" else "float-quantized",
        "quantization_status": "compressed",
        "ignore": [IGNORED],
        "kv_cache_scheme": None,
        "config_groups": {"group_0": group},
    } | changes


TOKEN = {"dynamic": True, "strategy": "token"}
CONFIGURATIONS = {
    "int8-channel": compressed(INT8 | {"strategy": "channel"}, INT8 | TOKEN),
    "int8-tensor": compressed(INT8 | {"strategy": "tensor"}, INT8 | TOKEN),
    "fp8-channel": compressed(FLOAT8 | {"strategy": "channel"}, FLOAT8 | TOKEN),
    "fp8-tensor": compressed(FLOAT8 | {"strategy": "tensor"}, FLOAT8 | TOKEN),
    "fp8-block": compressed(
        FLOAT8 | {"strategy": "block", "block_structure": list(BLOCK)},
        FLOAT8 | {"dynamic": True, "strategy": "group", "group_size": BLOCK[1]},
    ),
    "fine-grained": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK),
    },
}  # fmt: skip


def write(plain: Path, folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """A quantized copy of a folder; returns what its weights stand for, by name."""
    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = CONFIGURATIONS[kind]
    (folder / "config.json").write_text(json.dumps(config))
    stored, meant = {}, {}
    suffix = "weight_scale_inv" if kind == "fine-grained" else "weight_scale"
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = tensor
            continue
        numbers, scales = quantize(tensor, kind)
        stored[name], stored[f"{name.removesuffix('weight')}{suffix}"] = numbers, scales
        meant[name] = numbers.float() * spread(scales, tensor.shape, kind)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return meant


def quantize(weight: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of 8 bits and scales, as their formats have them."""
    if kind.endswith("channel"):
        largest = weight.abs().amax(dim=1, keepdim=True)
    elif kind.endswith("tensor"):
        largest = weight.abs().amax().reshape(1)
    else:
        rows, columns = BLOCK
        height, width = (-(-size // part) * part for size, part in zip(weight.shape, BLOCK, strict=True))
        padded = torch.nn.functional.pad(weight, (0, width - weight.shape[1], 0, height - weight.shape[0]))
        largest = padded.abs().view(height // rows, rows, width // columns, columns).amax(dim=(1, 3))
    if kind.startswith("int8"):
        scales = largest / 127.5  # as compressed-tensors has it: -128 is a number too
        return (weight / scales).round().clamp(-128, 127).to(torch.int8), scales
    scales = largest / 448
    return (weight / spread(scales, weight.shape, kind)).clamp(-448, 448).to(E4M3), scales


def spread(scales: torch.Tensor, shape: torch.Size, kind: str) -> torch.Tensor:
    """A scale for every number."""
    if kind.endswith(("channel", "tensor")):
        return scales
    return scales.repeat_interleave(BLOCK[0], 0).repeat_interleave(BLOCK[1], 1)[: shape[0], : shape[1]]


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    """A quantized tiny model of each kind and what its weights stand for, made once."""
    made: dict[str, tuple[Path, dict[str, torch.Tensor]]] = {}

    def folder_of(kind: str) -> tuple[Path, dict[str, torch.Tensor]]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "model"
            made[kind] = folder, write(tiny_folder("llama"), folder, kind)
        return made[kind]

    return folder_of


def model_of(folder: Path, precision: str = "float32") -> CausalModel:
    """Loaded, not prepared yet."""
    return CausalModel(loading.load(loading.describe(checkpoint.inspect(folder), precision), torch.device("cpu")))


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.parametrize("kind", sorted(CONFIGURATIONS))
def test_it_computes_with_the_weights_that_the_numbers_stand_for(kind, folders, tiny_folder):
    """As transformers computes with them, but for what rows in 8 bits cost; a served engine keeps its promises."""
    folder, meant = folders(kind)
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in meant.items():
            reference.get_parameter(name).copy_(weight)
    ids = torch.arange(12)[None]
    model = model_of(folder)
    own = "none" if kind in ("fp8-block", "fine-grained") else kind.partition("-")[0]
    with torch.inference_mode():
        right = reference(input_ids=ids).logits
        model.module.set_attn_implementation("eager")
        stored = model.module(input_ids=ids).logits
        torch.testing.assert_close(stored, right, rtol=1e-4, atol=1e-4)
        model.module.set_attn_implementation("serin_paged")
        model.prepare(keep_bits=True, quantize=own)
        model.module.set_attn_implementation("eager")
        found = model.module(input_ids=ids).logits
    error = float((found - right).norm() / right.norm())
    assert error < {"none": 1e-4, "int8": 0.05, "fp8": 0.15}[own]
    about = load_engine(str(folder), EngineConfig(num_blocks=16, num_threads=1))[1]
    assert about.precision == ("float32" if own == "none" else f"{own}/float32")
    assert about.numerics == "invariant"


@pytest.mark.usefixtures("compiled_kernels")
def test_int8_numbers_are_taken_as_they_are():
    """Laid out for the kernel without rounding anew, -128 included, whatever the shape."""
    generator = torch.Generator().manual_seed(0)
    for shapes, width in (((64, 33), 100), ((32,), 64), ((5, 96, 7), 17)):
        weights = [
            (
                torch.randint(-128, 128, (count, width), generator=generator, dtype=torch.int8),
                torch.rand(count, generator=generator),
            )
            for count in shapes
        ]
        rows = torch.randn((19, width), generator=generator)
        for found, (numbers, scales) in zip(
            NativeWeights(Kind.INT8, weights, [None] * len(shapes))(rows), weights, strict=True
        ):
            assert torch.equal(found, linear_int8(rows, numbers, scales))


def test_layers_that_are_left_out_stay_as_they_are(folders):
    """`ignore` names the output layer: it is no member of the others."""
    model = model_of(folders("int8-channel")[0])
    model.prepare(keep_bits=False, quantize="int8")
    assert model.linears in ("int8+packed", "int8")
    assert model.module.lm_head.weight.dtype.is_floating_point if model.linears == "int8" else True
    assert not any(type(module).__name__ == "StoredLinear" for module in model.module.modules())


@pytest.mark.usefixtures("compiled_kernels")
def test_blocks_can_be_quantized_anew(folders):
    """Held by block they count as plain weights, and may become either."""
    for quantize in ("int8", "fp8"):
        about = load_engine(
            str(folders("fine-grained")[0]), EngineConfig(num_blocks=16, num_threads=1, quantize=quantize)
        )[1]
        assert about.precision == f"{quantize}/float32"


def test_another_quantization_than_the_checkpoints_is_refused(folders):
    """Nothing is rounded twice without a word."""
    with pytest.raises(
        BadConfig, match="quantize is fp8; accepted: none or int8, which the checkpoint's weights are in"
    ):
        load_engine(str(folders("int8-channel")[0]), EngineConfig(num_blocks=16, quantize="fp8"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "'gptq': this method"),
        ({"quant_method": "awq"}, "'awq': this method"),
        ({"quant_method": "mxfp4"}, "'mxfp4': this method"),
        ({"quant_method": "torchao"}, "'torchao': this method"),
        ({"load_in_4bit": True}, "'unnamed': this method"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "'bitsandbytes': this method"),
        ("int8", "'unnamed': this method"),
        (compressed(INT8 | {"num_bits": 4, "strategy": "group"}, None, format="pack-quantized"), "'pack-quantized'"),
        (compressed(INT8 | {"strategy": "channel"}, None), "activations that are not quantized"),
        (compressed(INT8 | {"strategy": "channel"}, INT8 | {"dynamic": False}), "activations with a fixed scale"),
        (compressed(INT8 | {"strategy": "channel", "symmetric": False}, INT8 | TOKEN), "asymmetric scales"),
        (compressed(INT8 | {"strategy": "group"}, INT8 | TOKEN), "scales by group"),
        (compressed(INT8 | {"strategy": "channel"}, INT8 | TOKEN, kv_cache_scheme=FLOAT8), "a quantized KV cache"),
        (compressed(INT8 | {"strategy": "channel"}, INT8 | TOKEN, config_groups={}), "a mixture of 0 schemes"),
        (compressed(INT8 | {"strategy": "channel"}, INT8 | TOKEN, config_groups={"g": {}}), "what it says (KeyError"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "activation_scheme 'static'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "what it says (ValueError"),
    ],
)
def test_what_is_not_served_is_refused_by_name(found, said, tiny_folder, tmp_path):
    """Before anything is loaded; the sentence says what is served instead."""
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": found}))
    with pytest.raises(ModelRefused) as caught:
        checkpoint.inspect(folder)
    assert caught.value.file == str(path)
    assert said in str(caught.value)
    assert "bfloat16" in str(caught.value)
    assert "compressed-tensors" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(f"{LAYER}.weight_scale"), "has no 'weight_scale' beside it"),
        (lambda tensors: tensors.update({f"{LAYER}.weight_scale": torch.ones(3)}), "of shape (3,); accepted: F32"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}),
            "'model.norm.weight' is quantized (int8) and not the weight of a linear layer",
        ),
        (
            lambda tensors: tensors.update({f"{LAYER}.weight": tensors[f"{LAYER}.weight"].view(E4M3)}),
            "is stored as F8_E4M3",
        ),
        (lambda tensors: tensors.update({f"{LAYER}.input_scale": torch.ones(1)}), "has no place in the model"),
    ],
)
def test_tensors_that_do_not_fit_the_description(change, said, folders, tmp_path):
    """Named, with their file."""
    folder = shutil.copytree(folders("int8-channel")[0], tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelRefused) as caught:
        load_engine(str(folder), EngineConfig(num_blocks=8))
    assert said in str(caught.value)
    assert caught.value.file == str(path)


LAYER = "model.layers.1.mlp.up_proj"


def test_scales_that_are_no_numbers_are_found(folders, tmp_path):
    """The tensor is named, as with plain weights."""
    folder = shutil.copytree(folders("fp8-channel")[0], tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[f"{LAYER}.weight_scale"].fill_(torch.nan)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=rf"'{LAYER}.weight_scale' holds NaN"):
        load_engine(str(folder), EngineConfig(num_blocks=8))


@pytest.mark.parametrize("kind", ["int8-channel", "fp8-tensor", "fine-grained"])
def test_plain_weights_under_a_quantized_description_are_refused(kind, tiny_folder, tmp_path):
    """They were quantized here, also those that the description leaves out."""
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": CONFIGURATIONS[kind]}))
    with pytest.raises(ModelRefused, match=r"no tensor is stored as (I8|F8_E4M3) \(there are F32\)") as caught:
        load_engine(str(folder), EngineConfig(num_blocks=8))
    assert caught.value.file == str(path)
