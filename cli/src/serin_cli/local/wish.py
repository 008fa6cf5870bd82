"""What a person asked `serin up` for.

Knows nothing about how it is granted.
"""

from dataclasses import dataclass

from serin_control.config import MeshConfig

from serin_cli.local.edge import EdgeWish


@dataclass(frozen=True)
class Wish:
    """Flags and file of one `serin up`.

    Attributes:
        config: text of a `serin.yaml`, folders absolute.
        replaces: the text replaces what the control plane remembers from an earlier run.
        http_port, grpc_port: instead of the declared ones; 0: any free one.
        state_redis, cache_redis: instead of embedded Valkeys.
        edge: Envoy before the gateway; None: none.
    """

    config: str
    replaces: bool
    http_port: int | None = None
    grpc_port: int | None = None
    state_redis: str | None = None
    cache_redis: str | None = None
    edge: EdgeWish | None = None

    def ports(self, config: MeshConfig) -> tuple[int, int]:
        """The ports of REST and gRPC that are wanted under a configuration."""
        front = config.gateway
        http = front.port if self.http_port is None else self.http_port
        grpc = front.grpc_port if self.grpc_port is None else self.grpc_port
        return http, grpc
