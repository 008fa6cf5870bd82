"""Messages for Envoy's routes at the edge: from paths and names to targets. Pure functions.

The *edge* is for the world and reaches gateways only. The *mesh* is for internal callers without xDS: they name a
target (``worker.small``) as the authority of a plain gRPC call. It must never face the world.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from serin_mesh.call import KEEPALIVE_KEY, REQUEST_KEY

from serin_control.xds.routes import refusal, split_route, target_routes
from serin_control.xds.routing import GATEWAY, GATEWAY_REST, Target

EDGE, MESH = "edge", "mesh"

GRPC_PREFIXES = ("/serin.inference.v1.InferenceService/", "/grpc.health.v1.Health/")
REST_PREFIXES = ("/v1/",)
REST_PATHS = ("/tokenize", "/detokenize", "/live", "/ready", "/docs", "/openapi.json")
"""What the gateway shows the world; everything else of its REST port (``/metrics``) stays inside."""


KEEPALIVE_EVERY_S = 2
"""How often a gateway says over REST that it lives while it has nothing to answer, in whole seconds."""

HANGING_AFTER = timedelta(seconds=9)
"""Silence after which a call over REST ends. Signs of life are up to 4 s apart, so a gateway may be busy for 5 s; over
gRPC `clusters.GATEWAY_KEEPALIVE` does the same."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Where Envoy listens, and its certificates (files and folders on Envoy's machine; empty: plain).

    Ports: 0 is any free one for the edge; ``mesh_port`` None leaves the mesh listener out. ``public_certificate`` and
    ``public_key`` are shown to the world, ``mesh_certificates`` is a folder with Envoy's own identity in the mesh.
    """

    host: str = "127.0.0.1"
    port: int = 0
    mesh_host: str = "127.0.0.1"
    mesh_port: int | None = None
    public_certificate: str = ""
    public_key: str = ""
    mesh_certificates: str = ""


def make_edge_routes(targets: Mapping[str, Target]) -> route.RouteConfiguration:
    """Gateways, by path: gRPC and REST on one port."""
    grpc_only = route.RouteMatchGrpcRouteMatchOptions()
    grpc, rest = targets[GATEWAY], targets[GATEWAY_REST]
    routes = [
        *(_named(split_route(route.RouteMatch(prefix=prefix, grpc=grpc_only), grpc)) for prefix in GRPC_PREFIXES),
        *(_kept_alive(split_route(route.RouteMatch(prefix=prefix), rest)) for prefix in REST_PREFIXES),
        *(_kept_alive(split_route(route.RouteMatch(path=path), rest)) for path in REST_PATHS),
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


def _named(way: route.Route) -> route.Route:
    """Gives gRPC calls Envoy's name for the request in the key where gateways look for it, unless they have one."""
    name = core.HeaderValueOption(
        header=core.HeaderValue(key=REQUEST_KEY, value="%REQ(X-REQUEST-ID)%"),
        append_action=core.HeaderValueOptionHeaderAppendAction.ADD_IF_ABSENT,
    )
    way.request_headers_to_add = [name]
    return way


def _kept_alive(way: route.Route) -> route.Route:
    """Has gateways give signs of life over HTTP/1.1, which has none of its own, and ends calls where there are none.

    Interim responses before an answer, comments in a stream: each begins the count of silence anew and the former go no
    further. No call is repeated for its gateway's silence: it has been sent, and may be computed and paid for.
    """
    if way.route is None or way.route.retry_policy is None:
        return way
    every = core.HeaderValue(key=KEEPALIVE_KEY, value=str(KEEPALIVE_EVERY_S))
    way.request_headers_to_add = [
        core.HeaderValueOption(
            header=every, append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
        )
    ]
    way.route.retry_policy.per_try_idle_timeout = HANGING_AFTER
    return way


def _configuration(name: str, hosts: list[route.VirtualHost]) -> route.RouteConfiguration:
    return route.RouteConfiguration(name=name, virtual_hosts=hosts, ignore_port_in_host_matching=True)
