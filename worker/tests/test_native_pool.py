"""The kernels' threads: right with more of them than processors, from several callers at once, and after a fork."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from serin_worker.model.native_linear import Kind, NativeWeights
from serin_worker.native import library
from serin_worker.native.outcome import answering

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.fixture(autouse=True)
def _many_threads() -> Iterator[None]:
    library.set_num_threads(7)
    yield
    library.set_num_threads(0)


def _layer() -> tuple[NativeWeights, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((9, 96), generator=generator)
    layer = NativeWeights(Kind.INT8, [torch.randn((2000, 96), generator=generator)], [None])
    library.set_num_threads(1)
    (right,) = layer(rows)
    library.set_num_threads(7)
    return layer, rows, right


def test_callers_of_several_threads_at_once():
    """One of them has the helpers, the others go on alone; every result is whole."""
    layer, rows, right = _layer()
    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(lambda _: layer(rows)[0], range(2_000)):
            assert torch.equal(found, right)


def test_helpers_that_hardly_run_are_not_waited_for():
    """All threads on one processor: the caller does what helpers do not come to."""
    layer, rows, right = _layer()
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        for _ in range(300):
            assert torch.equal(layer(rows)[0], right)
    finally:
        os.sched_setaffinity(0, processors)


_FORKING = """
import ctypes, os, sys
activate = ctypes.CDLL(sys.argv[1]).serin_activate
size = 200_000
inputs, outputs = (ctypes.c_float * size)(*[1.0] * size), (ctypes.c_float * size)()
def run():
    ctypes.memset(outputs, 0, 4 * size)
    activate(0, 0, inputs, None, outputs, ctypes.c_int64(size), 3)
    return min(outputs) > 0.7
assert run()
child = os.fork()
if child == 0:
    os._exit(0 if run() else 1)
assert os.waitpid(child, 0)[1] == 0 and run()
"""


def test_a_forked_process_has_helpers_of_its_own():
    """Threads do not survive a fork; a loop in the child must not wait for them."""
    built = library.build(library.kernel_folder())
    subprocess.run([sys.executable, "-c", _FORKING, str(built)], check=True, timeout=60)


_LACKING = """
import ctypes, resource, sys
library = ctypes.CDLL(sys.argv[1])
size = 200_000
inputs, outputs = (ctypes.c_float * size)(*[1.0] * size), (ctypes.c_float * size)()
def run():
    ctypes.memset(outputs, 0, 4 * size)
    library.serin_activate(0, 0, inputs, None, outputs, ctypes.c_int64(size), 3)
    return min(outputs) > 0.7
assert run()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (256 << 20),) * 2)
for _ in range(50):  # each thread wants 4 GB for a row of so many logits
    assert library.serin_draw(inputs, 0, ctypes.c_int64(0), 1 << 30, inputs, 8, outputs, 3) == 2
assert run()
"""


def test_memory_that_ends_in_helpers_is_told_to_the_caller():
    """No thread ends the process, and the next loop has helpers again."""
    built = library.build(library.kernel_folder())
    subprocess.run([sys.executable, "-c", _LACKING, str(built)], check=True, timeout=60)


def test_numbers_that_a_kernel_does_not_know():
    """It computes nothing, and says so."""
    draw = answering(library.kernels().serin_draw)
    with pytest.raises(TypeError, match="serin_draw"):
        draw(None, library.DTYPES[torch.float16], 0, 8, None, 1, None, 1)
