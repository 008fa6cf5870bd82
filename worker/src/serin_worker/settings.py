"""What the worker can be told beyond what every service can."""

from typing import Literal

from pydantic import Field
from serin_mesh.engine_ranges import BLOCK_TOKENS, DEFAULT_SEQUENCES, MAX_COUNT, MAX_SEQUENCES, MAX_THREADS
from serin_mesh.settings import ServiceSettings

from serin_worker.config import EngineConfig


class WorkerSettings(ServiceSettings):
    """Settings of the worker."""

    model: str = Field("", pattern=r"^[a-z0-9._-]{1,64}$", description="name of the model")
    model_path: str = Field("", min_length=1, description="model folder, or the name of a hub model")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of weights and KV; auto: what the model was saved in"
    )
    quantize: Literal["none", "int8", "fp8"] = Field(
        "none",
        description="int8, or fp8 (GPU; on a CPU for its answers, not for speed): linear layers in 8 bits, "
        "weights and what they are given; the rest in `precision`; none: as the checkpoint holds them",
    )
    numerics: Literal["auto", "fast", "invariant"] = Field(
        "auto", description="invariant: identical tokens in any batch and after a resume; auto: where the model can"
    )
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        examples=["cpu", "cuda", "cuda:N"],
        description="where the model computes",
    )
    block_size: int = Field(
        BLOCK_TOKENS, ge=BLOCK_TOKENS, le=256, multiple_of=BLOCK_TOKENS, description="tokens in a KV block"
    )
    kv_cache_bytes: int = Field(0, ge=0, description="memory for KV blocks; 0: by what is free")
    kv_blocks: int = Field(0, ge=0, le=MAX_COUNT, description="exact number of KV blocks; 0: by memory")
    max_batched_tokens: int = Field(
        0, ge=0, le=MAX_COUNT, description="most tokens computed in a step; 0: 512 on cpu, 8192 on cuda"
    )
    max_sequences: int = Field(
        DEFAULT_SEQUENCES, ge=1, le=MAX_SEQUENCES, description="most sequences (or inputs to embed) at once"
    )
    max_waiting: int = Field(1024, ge=1, le=100_000, description="most sequences that wait; more are refused")
    context_length: int = Field(
        0, ge=0, le=MAX_COUNT, description="most tokens of a sequence; 0: what the model was made for"
    )
    threads: int = Field(
        0,
        ge=0,
        le=MAX_THREADS,
        description="threads of CPU kernels, at most one for each processor; 0: by the size of the model",
    )
    stall_s: float = Field(
        2.5, ge=1, le=3600, description="seconds of work without a step, or a layer of one, that mean stuck"
    )

    @staticmethod
    def flag_of(field: str) -> str:
        """The flag that sets a field of the engine's configuration."""
        return "--" + WorkerSettings.key_of(field).replace("_", "-")

    @staticmethod
    def key_of(field: str) -> str:
        """The setting that sets a field of the engine's configuration, as `serin.yaml` spells it too."""
        return _NAMES.get(field, field)

    def engine_config(self) -> EngineConfig:
        """The engine's part of the settings.

        Raises:
            BadConfig: two values do not go together; :meth:`flag_of` says which flag to blame.
        """
        return EngineConfig(
            precision=self.precision,
            quantize=self.quantize,
            numerics=self.numerics,
            device=self.device,
            block_size=self.block_size,
            kv_bytes=self.kv_cache_bytes or None,
            num_blocks=self.kv_blocks or None,
            max_num_batched_tokens=self.max_batched_tokens or None,
            max_num_sequences=self.max_sequences,
            max_num_waiting=self.max_waiting,
            context_length=self.context_length or None,
            num_threads=self.threads or None,
        )


_NAMES = {
    "kv_bytes": "kv_cache_bytes",
    "num_blocks": "kv_blocks",
    "max_num_batched_tokens": "max_batched_tokens",
    "max_num_sequences": "max_sequences",
    "max_num_waiting": "max_waiting",
    "num_threads": "threads",
}
"""Settings that are named otherwise than the engine's fields."""
