"""Compile kernels for a device that need not be there, as the worker would launch them.

    python worker/tests/compile_triton.py

Those of attention, and of linear layers in int8. Prints a line for each kernel and layer: registers, spilled and shared
bytes, matrix instructions. Fails where a kernel does not compile, where prompts and decodes of an invariant layer are
multiplied in different layouts, since their bits may then differ, or where matrix instructions of the device's own
(wgmma) were to be used and are not.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from serin_worker.attention import triton_kernels
from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.layer import LayerSpec, StepSequences
from serin_worker.attention.triton_paged import TritonPagedAttention
from serin_worker.model import triton_int8, triton_quantize
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGET = GPUTarget("cuda", 90, 32)
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int8: "*i8",
}
NAMES = ("write_rows", "attend_prompts", "attend_decodes", "merge_decodes")
INT8_LAUNCHERS = {"quantize_whole_kernel": triton_quantize, "linear_int8_kernel": triton_int8}
INT8_KERNELS = {name: getattr(module, name) for name, module in INT8_LAUNCHERS.items()}
LAYERS = {
    "llama": (LayerSpec(32, 8, 128, 128, 128**-0.5), torch.bfloat16),
    "uneven": (LayerSpec(6, 2, 24, 40, 0.2, window=21, softcap=3.0, has_sinks=True), torch.float16),
    "deep": (LayerSpec(8, 4, 256, 256, 256**-0.5, window=1024), torch.bfloat16),
    "float32": (LayerSpec(4, 2, 64, 64, 0.125), torch.float32),
}


class Recorded:
    """Stands where a kernel is launched and compiles it for what it is given."""

    def __init__(self, kernel, launches):
        self._kernel, self._launches = kernel, launches

    def __getitem__(self, grid):
        return self._compile

    def _compile(self, *args, num_warps=4, num_stages=3, enable_fp_fusion=True, **constants):
        names = self._kernel.arg_names
        given = dict(zip(names, args, strict=False)) | constants
        if "WIDEN" in given:
            given["WIDEN"] = False  # that is for the interpreter
        fixed = {name for name in names if name in constants or given[name] is None}
        signature, attributes = {}, {}
        for place, name in enumerate(names):
            value = given[name]
            if name in fixed:
                signature[name] = "constexpr"
            elif isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
                attributes[(place,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
                if name.endswith("_stride") and name != "table_stride" and value % 16 == 0:
                    attributes[(place,)] = [["tt.divisibility", 16]]
        values = {(names.index(name),): given[name] for name in fixed}
        source = ASTSource(self._kernel, signature, values, attributes)
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": enable_fp_fusion}
        self._launches[self._kernel.__name__] = triton.compile(source, target=TARGET, options=options)


def main() -> int:
    """Compile everything, and say what is wrong."""
    wrong = 0
    kernels = {name: getattr(triton_kernels, name) for name in NAMES}
    for layer, (spec, dtype) in LAYERS.items():
        for invariant in (True, False):
            launches = {}
            for name, kernel in kernels.items():
                setattr(triton_kernels, name, Recorded(kernel, launches))
            launch(TritonPagedAttention(torch.device("cpu"), invariant=invariant), spec, dtype)
            for name, compiled in launches.items():
                print(f"{layer:8} {'invariant' if invariant else 'fast':9} {name:15} {described(compiled)}", flush=True)
            layouts = {name: matrix_layouts(launches[name]) for name in ("attend_prompts", "attend_decodes")}
            if not all(layouts.values()):
                print(f"  no products are found: {layouts}")
                wrong += 1
            if invariant and len(set(layouts.values())) != 1:
                print(f"  prompts and decodes are multiplied in different layouts: {layouts}")
                wrong += 1
            if invariant and layer == "llama" and "wgmma" not in launches["attend_decodes"].asm["ptx"]:
                print("  wgmma is not used")
                wrong += 1
    for num_rows in (1, 64, 512):
        launches = {}
        for name, module in INT8_LAUNCHERS.items():
            setattr(module, name, Recorded(INT8_KERNELS[name], launches))
        multiply(num_rows)
        for name, compiled in launches.items():
            print(f"int8     {num_rows:<4} rows {name:20} {described(compiled)}", flush=True)
        used = "wgmma" if num_rows >= triton_int8.BATCHES.rows else "mma.sync"
        if used not in launches["linear_int8_kernel"].asm["ptx"]:
            print(f"  {used} is not used")
            wrong += 1
    return 1 if wrong else 0


def multiply(num_rows):
    """Rows by a layer in int8."""
    numbers, factors = triton_quantize.int8_rows(torch.zeros((num_rows, 4096), dtype=torch.bfloat16))
    weight = torch.zeros((6144, 4096), dtype=torch.int8)
    triton_int8.product(numbers, factors, weight, torch.zeros(6144), None, torch.bfloat16)


def launch(attention, spec, dtype):
    """A step with a prompt and a decode."""
    step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 16, 17], [16, 1], [[0], [1]])))
    cache = attention.allocate(spec, 2, 16, dtype)
    cache.sinks = torch.zeros(spec.num_query_heads) if spec.has_sinks else None
    heads = (
        (spec.num_query_heads, spec.key_dim),
        (spec.num_kv_heads, spec.key_dim),
        (spec.num_kv_heads, spec.value_dim),
    )
    rows = (torch.zeros((32, *shape), dtype=dtype) for shape in heads)
    attention.attend_device(cache, DeviceStep.of(step, 32, torch.device("cpu")), *rows)


def matrix_layouts(compiled):
    """Layouts in which products and their sums lie in registers."""
    text = compiled.asm["ttgir"]
    names = set(re.findall(r"(?:tt\.dot|warp_group_dot) .*-> tensor<[^>]*?, (#\w+)>", text))
    return frozenset(re.search(rf"^{re.escape(name)} = (.*)$", text, re.M)[1] for name in names)


def described(compiled):
    """What the assembler makes of it."""
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [PTXAS, "-v", "--gpu-name", "sm_90a", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (re.search(pattern, said)[1] for pattern in (r"Used (\d+) reg", r"(\d+) bytes spill st"))
    counts = ", ".join(f"{ptx.count(kind)} {kind}" for kind in ("wgmma.mma_async", "mma.sync") if kind in ptx)
    return (
        f"{registers} registers, {spilled} bytes spilled, {compiled.metadata.shared} shared; {counts or 'no matrices'}"
    )


if __name__ == "__main__":
    sys.exit(main())
