"""From a model's name to an engine that can step: locate, inspect, hash, load, bind, size the cache.

Knows nothing about threads, networks or settings.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from serin_mesh.identity import kv_digest

from serin_worker import fitting
from serin_worker.attention.layer import DeviceAttention, PagedAttention
from serin_worker.attention.native import NativePagedAttention
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.blocks import BlockPool
from serin_worker.bounds import Bounds
from serin_worker.config import BadConfig, EngineConfig, Numerics, Quantization
from serin_worker.description import EngineDescription
from serin_worker.device import device_of
from serin_worker.engine import Engine
from serin_worker.errors import LogitsNotFinite, ModelRefused
from serin_worker.limits import Limits
from serin_worker.model import checkpoint, digests, finiteness, fp8, hub, int8_layers, loading
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.decode_graphs import CudaRecorder, DecodeGraphs
from serin_worker.model.own_code import own_code_of
from serin_worker.model.processor import instruction_set, num_processors
from serin_worker.model.verification import Verification, num_check_blocks
from serin_worker.native.library import KernelUnavailable, has_kernels, is_built, kernel_folder, set_num_threads
from serin_worker.native.triton_runtime import has_triton
from serin_worker.quantization import quantization_of
from serin_worker.runner import ModelRunner

ENGINE_EPOCH = "4"
"""Name of the engine's arithmetic: changed whenever computed KV may differ."""

Stage = Literal["hashing", "building", "loading", "preparing", "checking"]
Progress = Callable[[Stage, float], None]
_SMALL_MODEL = 20_000_000


def load_engine(
    model: str,
    config: EngineConfig,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Engine, EngineDescription]:
    """Load a model by folder or hub id, compare it with itself, and size its cache.

    Args:
        model: path of a folder, or ``organization/name``.
        config: how to run it.
        progress: called with a stage's name and its fraction, 0 to 1; what it raises ends the start.
        clock: seconds, by which the engine paces its steps and times its requests.

    Raises:
        ModelRefused: with the file that is to blame; nothing was served.
        BadConfig: the device is not there, the cache would hold too little, or this machine cannot quantize so.
    """
    report = _reporter(progress)
    device = device_of(config)
    found = checkpoint.inspect(hub.locate(model))
    threads = num_threads(found, config)
    torch.set_num_threads(threads)
    set_num_threads(threads)
    weights = digests.weights_digest(found, progress=report("hashing"))
    precision = found.precision if config.precision == "auto" else config.precision
    quantize = quantization_of(found, config, precision)
    described = loading.describe(found, precision)
    if device.type == "cpu" and not is_built(kernel_folder()):
        report("building")(0.0)  # half a minute, once; without a compiler torch serves, which is told below
        has_kernels()
    fitting.check_fit(described, config, precision)
    try:
        with fitting.refusing(described, config, precision):
            loaded = CausalModel(loading.load(described, device, report("loading")))
            running = run_model(loaded, config, quantize, progress, clock)
    except LogitsNotFinite as error:
        raise finiteness.explain(found, precision) from error
    layout = f"{running.attention.layout}/{config.block_size}"
    if quantize != "none":
        precision = f"{quantize}/{precision}"
    return running.engine, EngineDescription(
        folder=found.folder,
        weights_digest=weights,
        kv_digest=kv_digest(weights=weights, precision=precision, layout=layout, engine_epoch=ENGINE_EPOCH),
        numerics_class=numerics_class(device, running.attention, loaded.linears),
        numerics=running.numerics,
        precision=precision,
        num_blocks=running.engine.pool.num_blocks,
        block_size=config.block_size,
        block_bytes=loaded.shape.block_bytes(config.block_size, loaded.dtype),
        context_length=running.engine.bounds.context_length,
        max_num_sequences=config.max_num_sequences,
        vocabulary_size=loaded.shape.vocabulary_size,
        attention=running.attention.layout,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """An engine, how it attends, and whether a row's bits depend on its batch."""

    engine: Engine
    attention: PagedAttention
    numerics: Numerics


def run_model(
    model: CausalModel,
    config: EngineConfig,
    quantize: Quantization = "none",
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Running:
    """Make a loaded model fast, compare it with itself, and put an engine over it.

    Raises:
        BadConfig: the cache would hold too little, or this device or machine cannot quantize so.
        LogitsNotFinite: the model computes something else than numbers.
        ModelRefused: it is not what its own code computes, or not invariant where that is asked for.
    """
    report = _reporter(progress)
    attention = choose_attention(model.device, config.block_size, invariant=config.numerics != "fast")
    row_multiple = _prepare(model, config, quantize, report("preparing"))
    if model.is_native:
        torch.set_num_threads(1)  # what is left to torch is small, and its threads wait for each other
    report("checking")(0.0)
    reserved = model.peak_bytes(config.token_budget, config.max_num_sequences)
    num_blocks = fitting.num_blocks(model.shape, model.dtype, config, reserved)
    model.bind(attention, num_check_blocks(config.block_size), config.block_size)
    numerics, row_multiple = _verify(model, config, row_multiple)
    model.bind(attention, num_blocks, config.block_size)
    model.fuse_layers()
    graphs = _decode_graphs(model, attention, config, row_multiple, report("checking"))
    engine = _engine(model, config, num_blocks, ModelRunner(model, row_multiple, graphs), clock)
    report("checking")(1.0)
    return Running(engine, attention, numerics)


def _reporter(progress: Progress | None) -> Callable[[Stage], Callable[[float], None]]:
    def report(stage: Stage) -> Callable[[float], None]:
        return lambda fraction: progress(stage, fraction) if progress else None

    return report


def _decode_graphs(
    model: CausalModel,
    attention: PagedAttention,
    config: EngineConfig,
    row_multiple: int,
    progress: Callable[[float], None],
) -> DecodeGraphs | None:
    """Recorded decode steps, where the device can record them."""
    if model.device.type != "cuda" or not isinstance(attention, DeviceAttention):
        return None
    log = logging.getLogger(__name__)
    log.warning(
        "decode steps on %s are recorded as graphs: tested with their eager twin on the CPU, and on no device yet "
        "(docs/gpu.md)",
        model.device,
    )
    graphs = DecodeGraphs(model, CudaRecorder(model.device), config.max_num_sequences, row_multiple)
    try:
        graphs.record(progress)
    except RuntimeError as error:
        log.warning("decode steps cannot be recorded, and launch their kernels one by one: %s", error)
        return None
    return graphs


def _prepare(
    model: CausalModel, config: EngineConfig, quantize: Quantization, progress: Callable[[float], None]
) -> int | None:
    if quantize == "fp8":
        fp8.tell_limits(model.device)
    elif quantize == "int8" and model.device.type != "cpu":
        int8_layers.tell_limits(model.device)
    try:
        return model.prepare(keep_bits=config.numerics == "invariant", quantize=quantize, progress=progress)
    except KernelUnavailable as error:
        raise BadConfig("quantize", quantize, f"none, since its kernel cannot be built here: {error}") from error


def _verify(model: CausalModel, config: EngineConfig, row_multiple: int | None) -> tuple[Numerics, int]:
    """Compare the model with itself; returns the numerics that it will run with, and of how many rows a multiple."""
    verification = Verification(model, config.block_size)
    with own_code_of(model.module):
        verification.check_attention()
        if config.numerics == "fast" or row_multiple is None:
            return "fast", 1
        try:
            row_multiple = verification.check_products(row_multiple)
            verification.check_invariance(row_multiple)
        except ModelRefused as error:
            if config.numerics == "invariant":
                raise ModelRefused(f"{error}; use 'numerics: fast'") from error
            logging.getLogger(__name__).warning("%s; it is served as 'numerics: fast'", error)
            return "fast", 1
        return "invariant", row_multiple


def _engine(
    model: CausalModel, config: EngineConfig, num_blocks: int, runner: ModelRunner, clock: Callable[[], float]
) -> Engine:
    shape = model.shape
    limits = Limits(config.block_size, config.max_num_sequences, config.token_budget, window=shape.window)
    context_length = fitting.context_length_of(shape, config)
    bounds = Bounds(context_length, shape.vocabulary_size, shape.end_ids, config.max_num_waiting)
    runs_ahead = model.device.type == "cuda"
    if runs_ahead:
        logging.getLogger(__name__).warning(
            "steps on %s are launched before the tokens of the one before have come: tested on the CPU, where nothing "
            "runs by itself, and on no device yet (docs/gpu.md)",
            model.device,
        )
    return Engine(runner, BlockPool(num_blocks), limits, bounds, clock, runs_ahead=runs_ahead)


def num_threads(found: checkpoint.Checkpoint, config: EngineConfig) -> int:
    """As many as are asked for, at most one for each processor; unasked: one, where a layer takes microseconds.

    More than processors gain nothing, and the stacks of hundreds leave no address space for the model.
    """
    if config.num_threads is not None:
        processors = num_processors()
        if config.num_threads > processors:
            logging.getLogger(__name__).warning(
                "%d threads (--threads) are asked for and this process has %d processors: %d threads serve",
                config.num_threads,
                processors,
                processors,
            )
        return min(config.num_threads, processors)
    return 1 if found.num_parameters < _SMALL_MODEL else torch.get_num_threads()


def choose_attention(device: torch.device, block_size: int, *, invariant: bool = True) -> PagedAttention:
    """The fastest that this machine has: compiled kernels on the CPU, Triton's on a GPU, plain torch without either.

    Args:
        device: where the model is.
        block_size: tokens of a block.
        invariant: a row's bits shall not depend on whether it is a prompt's or a decode's.
    """
    log = logging.getLogger(__name__)
    if device.type == "cpu":
        try:
            return NativePagedAttention(block_size)
        except KernelUnavailable as error:
            log.warning("attention kernel unavailable, using torch: %s", error)
    if device.type == "cuda" and has_triton(device):  # else it has said why, and what to install
        # Not imported at the top: triton is there where somebody has a GPU, and on Linux alone.
        from serin_worker.attention.triton_paged import TritonPagedAttention

        log.warning(
            "kernels in Triton (attention, norms, rotations, activations, draws) serve on %s: they have been tested on "
            "the CPU alone, by its interpreter, and have run on no device yet (docs/gpu.md)",
            device,
        )
        return TritonPagedAttention(device, invariant=invariant)
    return TorchPagedAttention(device)


def numerics_class(device: torch.device, attention: PagedAttention, linears: str) -> str:
    """Machines of one class compute the same numbers: device kind, instruction set, kernels, engine epoch."""
    kernels = f"{attention.layout}+{linears}"
    return f"{machine_class(device)}/{kernels}/{ENGINE_EPOCH}"


def machine_class(device: torch.device) -> str:
    """What of a machine decides its arithmetic: device kind, instruction set, version of torch."""
    if device.type == "cuda":
        kind = f"cuda-{torch.cuda.get_device_name(device).replace(' ', '-').lower()}"
    else:
        kind = f"cpu-{instruction_set()}"
    return f"{kind}/torch-{torch.__version__.split('+')[0]}"
