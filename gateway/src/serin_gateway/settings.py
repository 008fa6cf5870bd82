"""What a gateway can be told, beyond what every service can."""

from typing import Self

from pydantic import Field, model_validator
from serin_mesh.settings import ServiceSettings, is_loopback

from serin_gateway.keys.records import DEFAULT_ORGANIZATION


class GatewaySettings(ServiceSettings):
    """Settings of a gateway."""

    http_host: str = Field("", description="address that REST listens on; default: --host")
    http_port: int = Field(
        8080, ge=0, le=65535, description="REST port, /live, /ready and /metrics too; 0: any free one"
    )
    state_redis: str = Field(
        "", pattern=r"^$|^(redis|rediss|unix)://", description="URL of the state Redis: keys, limits"
    )
    organization: str = Field(
        DEFAULT_ORGANIZATION,
        pattern=r"^[a-z0-9._-]{1,64}$",
        description="the mesh's own: of keys and projects that nobody declared",
    )
    request_timeout_s: float = Field(600.0, gt=0, le=86400, description="longest time for one answer")
    local_limit_share: float = Field(
        0.5, gt=0, le=1, description="share of each limit that one gateway grants while the state Redis is away"
    )
    limits_wait_s: float = Field(
        1.0, gt=0, le=10, description="longest wait for the state Redis about limits; then a gateway decides alone"
    )
    max_waiting: int = Field(
        1024, ge=0, le=100_000, description="requests of one priority that may wait for a model here; more are refused"
    )

    ledger_days: int = Field(35, ge=1, le=4000, description="days that lines of the ledger are kept; their sums: 400")
    remembered_requests: int = Field(
        100_000, ge=0, le=10_000_000, description="finished requests kept for feedback and `serin explain`; 0: none"
    )

    @model_validator(mode="after")
    def _encrypt_rest_off_loopback(self) -> Self:
        if self.http_host and self.tls_dir is None and not is_loopback(self.http_host):
            raise ValueError(
                f"http_host: {self.http_host!r}: a loopback address, or --tls-dir with it: off loopback TLS is required"
            )
        return self
