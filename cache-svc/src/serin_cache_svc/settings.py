"""What cache-svc can be told beyond what every service can."""

from pydantic import Field
from serin_mesh.settings import ServiceSettings


class CacheSettings(ServiceSettings):
    """Settings of cache-svc."""

    cache_redis: str = Field("", min_length=1, description="URL of the cache Redis: redis://, rediss:// or unix://")
    store_budget_ms: float = Field(
        50.0, gt=0, le=1000, description="milliseconds that a lookup in the cache Redis may take"
    )
    answer_ttl_s: int = Field(3600, ge=1, le=604_800, description="seconds that an answer is kept when nobody says")
    answer_max_bytes: int = Field(1 << 20, ge=1024, le=64 << 20, description="size of the largest answer that is kept")
