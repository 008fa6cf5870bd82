"""Triton's kernels compile for a Hopper GPU, once for all batches, which takes no GPU but all that leads to a launch.

The interpreter accepts more than the compiler does, and knows nothing of what a kernel is compiled anew for.
"""

import os
import subprocess
import sys

import pytest
import torch

_NUM_ROWS = (1, 2, 16, 17, 64, 65, 300)


@pytest.mark.long
def test_kernels_compile_once_for_all_batches(tmp_path):
    """In a process of its own, since here kernels are defined for the interpreter."""
    pytest.importorskip("triton", reason="Triton is missing")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, __file__],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    found = dict(line.split() for line in run.stdout.splitlines())
    # For each type: two norms, one of which also adds; two activations; a rotation; a quantization to each format; a
    # product with and without bias for each of three tiles; draws and none.
    assert found == {
        "rms_norm_kernel": "9",
        "activation_kernel": "6",
        "rotation_kernel": "3",
        "quantize_kernel": "3",
        "quantize_whole_kernel": "3",
        "linear_int8_kernel": "18",
        "choose_kernel": "6",
        "merge_kernel": "2",
    }


def main():
    """Everything but the launches of kernels, for a device that is not there; how often each was compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Hopper:
        def get_current_device(self):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_stream(self, device):
            return 0

    run, kernels = JITFunction.run, set()

    def compiled(kernel, *given, grid, warmup, **named):
        kernels.add(kernel)
        return run(kernel, *given, grid=grid, warmup=True, **named)

    driver.set_active(Hopper())
    JITFunction.run = compiled
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for num_rows in _NUM_ROWS:
            launch_all(num_rows, dtype)
    for kernel in kernels:
        print(kernel.__name__, len(kernel.device_caches[0][0]))


def launch_all(num_rows, dtype):
    """What a step of a model of the shape of Qwen3-0.6B launches, and its draws."""
    from serin_worker.model import triton_int8, triton_quantize
    from serin_worker.model.triton_modules import TritonActivation, TritonRMSNorm, rotate
    from serin_worker.request import Sampling
    from serin_worker.sampling import triton_draw

    hidden = torch.zeros((1, num_rows, 1024), dtype=dtype)
    norm, of_heads = (TritonRMSNorm(torch.ones(width, dtype=dtype), 1e-6, 0) for width in (1024, 128))
    norm(hidden)
    norm.add(hidden, hidden)
    triton_quantize.e4m3_rows(hidden, 448.0, 1e-12)
    numbers, factors = triton_quantize.int8_rows(hidden[0])
    weight, scales = torch.zeros((4096, 1024), dtype=torch.int8), torch.zeros(4096)
    for bias in (None, scales):
        triton_int8.product(numbers, factors, weight, scales, bias, dtype)
    q, k, _ = hidden.new_zeros((1, num_rows, 32 * 128)).split([2048, 1024, 1024], -1)
    q, k = (of_heads(part.view(1, num_rows, -1, 128)).transpose(1, 2) for part in (q, k))
    rotate(q, k, *hidden.new_zeros((2, 1, num_rows, 128)))
    for kind in (0, 1):
        TritonActivation(kind)(*hidden.new_zeros((1, num_rows, 6144)).split(3072, -1))
    logits = hidden.new_zeros((num_rows, 151_936))
    triton_draw.largest(logits)
    triton_draw.take(logits, [Sampling()] * num_rows, [(1, 0, 0)] * num_rows)


if __name__ == "__main__":
    main()
