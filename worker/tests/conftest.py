"""Tiny models, written once a session, and the models themselves as the reference."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from serin_worker.native.library import KernelUnavailable, kernels, set_num_threads
from serin_worker.testing import TinyKind, write_tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel


@pytest.fixture(scope="session")
def triton_device() -> Iterator[torch.device]:
    """Where Triton's kernels run: on a GPU, if there is one, and otherwise on the CPU, by its interpreter."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'serin-worker[cuda]'")
    import triton
    from triton.runtime import interpreter

    if not triton.knobs.runtime.interpret:
        yield torch.device("cuda")
        return

    prepared = interpreter._patch_lang_tensor

    def prepare(tensor: type, scope: object) -> None:
        # Triton 3.6 makes numbers of arrays in a way that NumPy 2.4 refuses (triton-lang/triton#9171).
        prepared(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang_tensor", prepare)
        yield torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=[1, 2, 5])
def kernel_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Kernels with one thread, with as many as there are processors, and with more."""
    set_num_threads(request.param)
    yield request.param
    set_num_threads(0)


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """For tests that need a compiler."""
    try:
        kernels()
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TinyKind], Path]:
    """The folder of a tiny model of a kind."""
    folders: dict[TinyKind, Path] = {}

    def folder_of(kind: TinyKind) -> Path:
        if kind not in folders:
            folders[kind] = write_tiny_model(tmp_path_factory.mktemp(kind), kind)
        return folders[kind]

    return folder_of


@pytest.fixture(scope="session")
def reference(tiny_folder: Callable[[TinyKind], Path]) -> Callable[[TinyKind], PreTrainedModel]:
    """The same model as transformers runs it."""
    models: dict[TinyKind, PreTrainedModel] = {}

    def model_of(kind: TinyKind) -> PreTrainedModel:
        if kind not in models:
            models[kind] = AutoModelForCausalLM.from_pretrained(
                tiny_folder(kind), dtype=torch.float32, attn_implementation="eager"
            ).eval()
        return models[kind]

    return model_of
