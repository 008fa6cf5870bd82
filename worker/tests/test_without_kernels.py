"""A machine without a compiler serves the same models by torch alone."""

import random

import pytest
import torch
from serin_worker import startup
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.config import EngineConfig
from serin_worker.native import library
from serin_worker.native.library import KernelUnavailable
from serin_worker.native.triton_runtime import has_triton
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.sampling import native_draw
from serin_worker.testing import TINY_VOCABULARY, run_dry, tokens_of


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """Nothing is built and nothing built before is found."""
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = (library.kernels, native_draw._kernel, library.has_kernels)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_kernels_are_unavailable():
    """The premise of the tests below."""
    with pytest.raises(KernelUnavailable):
        library.kernels()


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("numerics", ["fast", "invariant"])
def test_greedy_and_sampled_requests_run(tiny_folder, numerics, caplog):
    """Both numerics modes, with draws; the log says once what is missing, and that kernels are built is shown."""
    config = EngineConfig(precision="float32", numerics=numerics, num_blocks=32)
    stages: list[str] = []
    engine, about = startup.load_engine(str(tiny_folder("mistral")), config, lambda stage, done: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["hashing", "building", "loading", "preparing", "checking"]
    assert about.attention == TorchPagedAttention.layout
    assert about.numerics == numerics
    assert "attention kernel unavailable" in caplog.text
    draw = random.Random(5)
    prompts = [[draw.randrange(TINY_VOCABULARY) for _ in range(length)] for length in (3, 20, 50)]
    samplings = (Sampling(temperature=0.0), Sampling(seed=4, top_p=0.9), Sampling(seed=4, frequency_penalty=0.5))
    answers = []
    for is_batch in (False, True):
        found = {}
        for i, prompt in enumerate(prompts):
            for j, sampling in enumerate(samplings):
                engine.add(GenerationRequest(f"{i}{j}", prompt, sampling, Stopping(max_tokens=16)))
                if not is_batch:
                    found |= {name: tokens_of(outputs) for name, outputs in run_dry(engine).items()}
        found |= {name: tokens_of(outputs) for name, outputs in run_dry(engine).items()}
        answers.append(found)
    assert all(len(tokens) == 16 for tokens in answers[0].values())
    if numerics == "invariant":
        assert answers[0] == answers[1]


def test_a_device_without_triton_is_told_of(caplog):
    """One line names what is missing, and torch serves; a CPU is never asked."""
    assert not has_triton(torch.device("cuda", 99))
    assert "torch serves instead" in caplog.text
    assert "serin-worker[cuda]" in caplog.text
    assert not has_triton(torch.device("cpu"))
