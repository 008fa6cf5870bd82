"""A model that does not fit is refused before loading, with both numbers and what makes it fit; which then does."""

import re
from dataclasses import replace

import pytest
import torch
from serin_mesh.settings import SettingsError
from serin_worker import fitting
from serin_worker.assembly import serving
from serin_worker.config import EngineConfig
from serin_worker.embedding.startup import load_encoder
from serin_worker.errors import NotEnoughMemory
from serin_worker.model import checkpoint, loading
from serin_worker.model.processor import num_processors
from serin_worker.settings import WorkerSettings
from serin_worker.startup import load_engine, num_threads
from serin_worker.testing import write_tiny_encoder

WEIGHTS = 87_232
"""Numbers of the tiny llama."""
OTHERS = 199 * 64 + 5 * 64
"""Its embedding and norms."""
OUTPUTS = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64) + 199
BLOCK = 2 * 2 * 32 * 16
"""Numbers of a KV block: two layers, two heads, keys and values of 16, 16 tokens."""
SHORT = 8
"""Blocks of a short request."""


def give(monkeypatch, num_bytes: int) -> None:
    """A machine with so much free memory."""
    monkeypatch.setattr(fitting, "available_bytes", lambda *_: num_bytes)


def refusal(folder, config: EngineConfig, monkeypatch) -> NotEnoughMemory:
    """Why a folder is not loaded; nothing is read of it."""
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", None)
        with pytest.raises(NotEnoughMemory) as caught:
            load_engine(str(folder), config)
    return caught.value


@pytest.mark.parametrize(
    ("config", "weights", "num_blocks"),
    [
        (EngineConfig(), WEIGHTS * 4, SHORT),
        (EngineConfig(num_blocks=20), WEIGHTS * 4, 20),
        (EngineConfig(num_blocks=1, block_size=256), WEIGHTS * 4, 2 * 16),  # what is compared at start
        (EngineConfig(num_blocks=2, context_length=32), WEIGHTS * 4, 2 * 3),
        (EngineConfig(kv_bytes=BLOCK * 4 * 9), WEIGHTS * 4, 9),
        (EngineConfig(context_length=256), WEIGHTS * 4, 16),
        (EngineConfig(quantize="int8"), OTHERS * 4 + (WEIGHTS - OTHERS) + OUTPUTS * 4, SHORT),
    ],
)
def test_every_byte_is_counted(config, weights, num_blocks, tiny_folder, monkeypatch):
    """Weights as they lie in the end, and the KV cache that is asked for or is the least of use."""
    give(monkeypatch, 1_000)
    error = refusal(tiny_folder("llama"), config, monkeypatch)
    assert (error.available_bytes, error.needed_bytes) == (1_000, weights + num_blocks * BLOCK * 4)
    assert error.remedies == ()
    assert str(error).endswith("no setting makes it fit: use a smaller model, or free memory")


def test_threads_beyond_processors_take_no_memory(tiny_folder, caplog):
    """Stacks of a thousand threads would leave no address space to a process with a limit: they are not started."""
    found = checkpoint.inspect(tiny_folder("llama"))
    assert num_threads(found, EngineConfig(num_threads=1024)) == num_processors() < 1024
    assert f"1024 threads (--threads) are asked for and this process has {num_processors()} processors" in caplog.text
    caplog.clear()
    assert num_threads(found, EngineConfig(num_threads=1)) == num_threads(found, EngineConfig()) == 1
    assert not caplog.text


@pytest.mark.parametrize(
    ("config", "num_bytes", "remedies"),
    [
        (EngineConfig(), 210_000, ({"quantize": "int8"},)),
        (EngineConfig(), 250_000, ({"quantize": "int8"}, {"precision": "bfloat16"})),
        (
            EngineConfig(num_blocks=40),
            460_000,
            (
                {"kv_bytes": 81_920, "num_blocks": None},
                {"quantize": "int8", "kv_bytes": 303_104, "num_blocks": None},
            ),
        ),
        (EngineConfig(kv_bytes=400_000), 450_000, ({"kv_bytes": 73_728}, {"quantize": "int8", "kv_bytes": 294_912})),
        (EngineConfig(context_length=256), 440_000, ({"context_length": 128}, {"quantize": "int8"})),
        (EngineConfig(quantize="int8", precision="float32"), 150_000, ()),
    ],
)
def test_what_makes_it_fit_is_named_and_does(config, num_bytes, remedies, tiny_folder, monkeypatch):
    """Each remedy is enough by itself: with it the same machine loads the model."""
    give(monkeypatch, num_bytes)
    folder = tiny_folder("llama")
    error = refusal(folder, config, monkeypatch)
    assert error.remedies == remedies
    for remedy in remedies:
        described = loading.describe(checkpoint.inspect(folder), str(remedy.get("precision", "float32")))
        changed = replace(config, **remedy)
        give(monkeypatch, int(num_bytes * 0.95) + 1)  # and something is left for its steps
        fitting.check_fit(described, changed, str(remedy.get("precision", "float32")))


def test_a_gpu_holds_weights_as_they_are_first(tiny_folder, monkeypatch):
    """They are quantized where they lie: a smaller format helps the cache, and does not make a start fit."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(fitting.fp8, "multiplies_e4m3", lambda _: False)
    described = loading.describe(checkpoint.inspect(tiny_folder("llama")), "float32")
    whole = fitting.weight_bytes(described, "float32", "int8", torch.device("cpu"))
    assert fitting.weight_bytes(described, "float32", "int8", cuda) > WEIGHTS * 4 > whole
    changes = list(fitting._changes(described, EngineConfig(device="cuda"), "float32"))
    assert {"quantize": "int8"} in changes


async def test_the_sentence_names_flags(tiny_folder, monkeypatch):
    """What a user types, not what a field is called."""
    give(monkeypatch, 460_000)
    settings = WorkerSettings(model="tiny", model_path=str(tiny_folder("llama")), kv_blocks=40)
    with pytest.raises(SettingsError) as caught:
        async with serving(settings, lambda activity, progress: None):
            raise AssertionError("it started")
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(r"needs [\d,]+ bytes \(weights [\d,]+, KV cache [\d,]+\) and 460,000 are available", text)
    assert "it fits with --kv-cache-bytes 81920 --kv-blocks 0, or with --quantize int8" in text
    assert text.endswith("(in serin.yaml: kv_cache_bytes, kv_blocks, quantize)")


def test_a_model_of_embeddings(tmp_path, monkeypatch):
    """Counted without a KV cache."""
    folder = write_tiny_encoder(tmp_path)
    give(monkeypatch, 300_000)
    with pytest.raises(NotEnoughMemory) as caught:
        load_encoder(folder, EngineConfig())
    assert caught.value.remedies == ({"precision": "bfloat16"},)


@pytest.mark.parametrize(
    "said", [MemoryError(), RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)")]
)
def test_memory_that_ends_while_it_loads(said, tiny_folder, monkeypatch, tmp_path):
    """Told like what is refused before: both numbers, what the system said, and what takes less."""

    def fail(*arguments, **options):
        raise said

    for family in (loading.GENERATING, loading.ENCODING):
        monkeypatch.setattr(family.factory, "from_pretrained", fail)
    with pytest.raises(NotEnoughMemory) as caught:
        load_engine(str(tiny_folder("llama")), EngineConfig(num_blocks=40))
    assert caught.value.needed_bytes == WEIGHTS * 4 + 40 * BLOCK * 4
    assert (str(said) or "MemoryError") in str(caught.value)
    assert caught.value.remedies[0]["num_blocks"] is None
    with pytest.raises(NotEnoughMemory, match=r"needs [\d,]+ bytes and [\d,]+ are available, of which not all"):
        load_encoder(write_tiny_encoder(tmp_path), EngineConfig())
