"""Messages for Envoy at the edge: real listeners, and the routes from paths and names to targets. Pure functions.

The *edge* listener is for the world and reaches gateways only. The *mesh* listener is for internal callers without
xDS: they name a target (``worker.small``) as the authority of a plain gRPC call. It must never face the world.
Neither knows the pick cookie: Envoy would hand it out to callers, and with it addresses of the inside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any

from serin_control.xds.certificates import from_callers
from serin_control.xds.clusters import ADS
from serin_control.xds.listeners import router_filter
from serin_control.xds.routes import STREAM_IDLE_TIMEOUT, refusal, split_route, target_routes
from serin_control.xds.routing import GATEWAY, GATEWAY_REST, Target

EDGE, MESH = "edge", "mesh"

GRPC_PREFIXES = ("/serin.inference.v1.InferenceService/", "/grpc.health.v1.Health/")
REST_PREFIXES = ("/v1/",)
REST_PATHS = ("/live", "/ready", "/docs", "/openapi.json")
"""What the gateway shows the world; everything else of its REST port (``/metrics``) stays inside."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Where Envoy listens, and its certificates (folders on Envoy's machine; empty: plain).

    Ports: 0 is any free one for the edge; ``mesh_port`` None leaves the mesh listener out.
    """

    host: str = "127.0.0.1"
    port: int = 0
    mesh_host: str = "127.0.0.1"
    mesh_port: int | None = None
    public_certificates: str = ""
    mesh_certificates: str = ""


def make_edge_listeners(settings: EdgeSettings) -> list[listener.Listener]:
    """The listeners of an edge."""
    edge = _listener(EDGE, settings.host, settings.port, settings.public_certificates)
    if settings.mesh_port is None:
        return [edge]
    return [edge, _listener(MESH, settings.mesh_host, settings.mesh_port, "")]


def make_edge_routes(targets: Mapping[str, Target]) -> route.RouteConfiguration:
    """Gateways, by path: gRPC and REST on one port."""
    grpc_only = route.RouteMatchGrpcRouteMatchOptions()
    grpc, rest = targets[GATEWAY], targets[GATEWAY_REST]
    routes = [
        *(split_route(route.RouteMatch(prefix=prefix, grpc=grpc_only), grpc) for prefix in GRPC_PREFIXES),
        *(split_route(route.RouteMatch(prefix=prefix), rest) for prefix in REST_PREFIXES),
        *(split_route(route.RouteMatch(path=path), rest) for path in REST_PATHS),
        route.Route(match=route.RouteMatch(prefix="/"), direct_response=refusal("nothing is served here", status=404)),
    ]
    return _configuration(EDGE, [route.VirtualHost(name=EDGE, domains=["*"], routes=routes)])


def make_mesh_routes(targets: Iterable[Target]) -> route.RouteConfiguration:
    """Every target, by the authority that the caller names."""
    hosts = [
        route.VirtualHost(name=target.name, domains=[target.name], routes=target_routes(target))
        for target in targets
        if target.name != GATEWAY_REST
    ]
    return _configuration(MESH, hosts)


def _configuration(name: str, hosts: list[route.VirtualHost]) -> route.RouteConfiguration:
    return route.RouteConfiguration(name=name, virtual_hosts=hosts, ignore_port_in_host_matching=True)


def _listener(name: str, host: str, port: int, certificates: str) -> listener.Listener:
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm.Rds(config_source=ADS, route_config_name=name),
        http_filters=[router_filter()],
        use_remote_address=True,
        stream_idle_timeout=STREAM_IDLE_TIMEOUT,
        request_headers_timeout=timedelta(seconds=10),
        common_http_protocol_options=core.HttpProtocolOptions(
            idle_timeout=timedelta(hours=1),
            max_headers_count=100,
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
        ),
        http2_protocol_options=core.Http2ProtocolOptions(
            max_concurrent_streams=1000, initial_stream_window_size=65_536, initial_connection_window_size=1_048_576
        ),
        normalize_path=True,
        path_with_escaped_slashes_action=hcm.HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
    )
    chain = listener.FilterChain(
        filters=[listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))],
        transport_socket=from_callers(certificates) if certificates else None,
    )
    return listener.Listener(
        name=name,
        address=core.Address(socket_address=core.SocketAddress(address=host, port_value=port)),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=1_048_576,
    )
