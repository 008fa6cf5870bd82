"""Tiny models, written once a session, and the models themselves as the reference; Triton's kernels without a GPU."""

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from serin_worker.native.library import KernelUnavailable, kernels, set_num_threads
from serin_worker.testing import TinyKind, write_tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel

TRITON_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Whatever a test before has set: threads that wait for one another's cores burn more than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(params=[1, 2, 5])
def kernel_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Kernels with one thread, with as many as there are processors, and with more."""
    set_num_threads(request.param)
    yield request.param
    set_num_threads(0)


@pytest.fixture
def as_plain_user() -> Callable[[Callable[[], Any]], Any]:
    """Calls something as a user whom permissions of files bind, which they do not if it is root."""

    def call(act: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1, initializer=_drop_capabilities) as thread:
            return thread.submit(act).result()

    return call


def _drop_capabilities() -> None:
    """Of this thread, and those it starts, until it ends: capset(2), for all of them."""
    version_3, this_thread = 0x20080522, 0
    header, none = (ctypes.c_uint32 * 2)(version_3, this_thread), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """For tests that need a compiler."""
    try:
        kernels()
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def triton_device() -> Iterator[torch.device]:
    """Where Triton's kernels run: on a GPU, or on the CPU by its interpreter (see the root's conftest).

    The interpreter of 3.6 cuts what it converts to 16 bits or less, where devices round to the nearest, and makes
    numbers of arrays in a way that NumPy 2.4 refuses (triton-lang/triton#9171): both are mended.
    """
    language = pytest.importorskip("triton.language", reason="Triton is missing: pip install 'serin-worker[cuda]'")
    if TRITON_DEVICE.type == "cuda":
        yield TRITON_DEVICE
        return
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is missing")
    convert_own, prepare_own = interpreter._convert_float, interpreter._patch_lang_tensor
    kinds = {language.float32: torch.float32, language.bfloat16: torch.bfloat16, language.float16: torch.float16}
    kinds[language.float8e4nv] = torch.float8_e4m3fn
    words = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}

    def convert(numbers: Any, source: Any, target: Any, rounding: Any) -> Any:
        if not {source, target} <= kinds.keys():
            return convert_own(numbers, source, target, rounding)
        rounded = torch.from_numpy(numpy.ascontiguousarray(numbers)).view(kinds[source]).to(kinds[target])
        return rounded.view(words[rounded.itemsize]).numpy()

    def prepare(tensor: type, scope: Any) -> None:
        prepare_own(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_convert_float", convert)
        patch.setattr(interpreter, "_patch_lang_tensor", prepare)
        yield TRITON_DEVICE


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
