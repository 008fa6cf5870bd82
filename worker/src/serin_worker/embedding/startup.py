"""From a folder with a pooling configuration to an encoder that runs: locate, inspect, hash, load, compare.

Knows nothing about threads, networks or settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from serin_mesh.identity import digest_json, kv_digest

from serin_worker import fitting
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.device import device_of
from serin_worker.embedding.encoder import Encoder
from serin_worker.embedding.recipe import read_recipe
from serin_worker.embedding.request import EmbeddingBounds
from serin_worker.errors import LogitsNotFinite, ModelRefused
from serin_worker.model import checkpoint, digests, finiteness, loading
from serin_worker.model.packing import computed_in
from serin_worker.startup import Progress, Stage, machine_class, num_threads

EMBEDDING_EPOCH = "1"
"""Name of the arithmetic: changed whenever computed vectors may differ by more than rounding."""
CPU_BATCH_TOKENS = 2048
CUDA_BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class EmbeddingDescription:
    """What an embedding model is, once it is loaded.

    Attributes:
        weights_digest: of the weights, the model's configuration and how vectors are pooled.
        vector_digest: of everything that decides its vectors; registered where generating workers have their KV digest.
        numerics: "invariant": a vector's bits depend on its input alone; "fast": on its batch too, by rounding.
    """

    folder: Path
    weights_digest: str
    vector_digest: str
    numerics_class: str
    numerics: str
    precision: str
    bounds: EmbeddingBounds
    max_batch_tokens: int


def load_encoder(
    folder: Path, config: EngineConfig, progress: Progress | None = None
) -> tuple[Encoder, EmbeddingDescription]:
    """Load an embedding model and compare it with itself.

    Args:
        folder: the model's, with `modules.json`.
        config: how to run it; what is about KV blocks has no effect.
        progress: called with a stage's name and its fraction, 0 to 1; what it raises ends the start.

    Raises:
        ModelRefused: with the file that is to blame; nothing was served.
        BadConfig: it is to be quantized, or the device is not there.
    """

    def report(stage: Stage) -> Callable[[float], None]:
        return lambda fraction: progress(stage, fraction) if progress else None

    if config.quantize != "none":
        raise BadConfig("quantize", config.quantize, "none, for a model of embeddings")
    device = device_of(config)
    found = checkpoint.inspect(folder)
    if found.quantization is not None:
        raise ModelRefused("quantized weights are not served as a model of embeddings", str(folder / "config.json"))
    recipe = read_recipe(folder)
    if found.config.get("is_encoder_decoder"):
        raise ModelRefused("describes an encoder with a decoder; accepted: one of them", str(folder / "config.json"))
    torch.set_num_threads(num_threads(found, config))
    weights = digests.weights_digest(found, progress=report("hashing"))
    weights = digest_json({"weights": weights, "recipe": recipe.digest})
    precision = found.precision if config.precision == "auto" else config.precision
    described = loading.describe(found, precision, loading.ENCODING)
    fitting.check_encoder_fit(described, precision, device)
    with fitting.refusing(described, config, precision):
        model = loading.load(described, device, report("loading"))
        if device.type == "cpu":
            torch.nn.Module.to(model, computed_in(model.dtype))
    report("checking")(0.0)
    encoder = Encoder(model, recipe)
    try:
        encoder.check()
    except LogitsNotFinite as error:
        raise finiteness.explain(found, precision, "vectors") from error
    report("checking")(1.0)
    longest = (encoder.max_positions, recipe.max_tokens, config.context_length)
    layout = f"vector/{','.join(recipe.poolings)}/{recipe.normalizes}"
    return encoder, EmbeddingDescription(
        folder=folder,
        weights_digest=weights,
        vector_digest=kv_digest(weights=weights, precision=precision, layout=layout, engine_epoch=EMBEDDING_EPOCH),
        numerics_class=f"{machine_class(device)}/vectors/{EMBEDDING_EPOCH}",
        numerics="invariant" if config.numerics == "invariant" else "fast",
        precision=precision,
        bounds=EmbeddingBounds(
            max_tokens=min(number for number in longest if number is not None),
            vocabulary_size=encoder.vocabulary_size,
            num_dimensions=encoder.num_dimensions,
            can_shorten=encoder.can_shorten,
        ),
        max_batch_tokens=config.max_num_batched_tokens
        or (CUDA_BATCH_TOKENS if device.type == "cuda" else CPU_BATCH_TOKENS),
    )
