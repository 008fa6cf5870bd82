"""What tokenizer-svc can be told beyond what every service can."""

from pydantic import Field
from serin_mesh.settings import ServiceSettings


class TokenizerSettings(ServiceSettings):
    """Settings of tokenizer-svc."""

    model: str = Field("", pattern=r"^[a-z0-9._-]{1,64}$", description="name of the model")
    model_path: str = Field("", min_length=1, description="model folder, or the name of a hub model")
    render_processes: int = Field(2, ge=1, le=64, description="processes that render chat templates")
    render_timeout_s: float = Field(1.0, gt=0, le=60, description="seconds that a chat template may run")
    render_output_chars: int = Field(8 << 20, ge=1024, le=1 << 28, description="characters a chat template may write")
    render_memory_bytes: int = Field(
        512 << 20, ge=128 << 20, le=8 << 30, description="address space of a process that renders"
    )
    grammar_processes: int = Field(2, ge=1, le=64, description="processes that check grammars, started when needed")
    grammar_timeout_s: float = Field(3.0, gt=0, le=60, description="seconds that checking a grammar may take")
    grammar_memory_bytes: int = Field(
        1 << 30, ge=256 << 20, le=8 << 30, description="address space of a process that checks grammars"
    )
    grammar_cache_bytes: int = Field(16 << 20, ge=0, le=1 << 30, description="memory for grammars that were checked")
