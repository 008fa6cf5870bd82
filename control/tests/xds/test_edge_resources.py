"""What Envoy is told about gateways that fall silent; what it makes of that is in test_edge_requests."""

import serin_control.xds  # noqa: F401 - imports envoy-data-plane without the warnings that it raises
from betterproto2 import Message
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream
from serin_control.instance import Service
from serin_control.xds.clusters import make_cluster
from serin_control.xds.edge import HANGING_AFTER, KEEPALIVE_EVERY_S, make_edge_routes
from serin_control.xds.routing import GATEWAY, GATEWAY_REST, Cluster, Endpoint, Target


def edge_routes(*, split: tuple[tuple[str, int], ...]) -> list[route.Route]:
    """The edge's routes to gateways of these versions."""
    targets = {name: Target(name, Service.GATEWAY, split=split) for name in (GATEWAY, GATEWAY_REST)}
    return make_edge_routes(targets).virtual_hosts[0].routes


def is_grpc(one: route.Route) -> bool:
    """Whether a route is for gRPC."""
    return one.match is not None and one.match.grpc is not None


def test_rest_is_kept_alive_whatever_callers_say():
    """Every route to REST ports, of one version and of several, asks for signs of life and bounds silence."""
    for split in ((("gateway@v1", 1),), (("gateway@v1", 1), ("gateway@v2", 9))):
        rest = [one for one in edge_routes(split=split) if one.route is not None and not is_grpc(one)]
        assert len(rest) > 5
        for one in rest:
            (option,) = one.request_headers_to_add
            assert option.header == core.HeaderValue(key="serin-keepalive", value=str(KEEPALIVE_EVERY_S))
            assert option.append_action is core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
            assert one.route.retry_policy.per_try_idle_timeout == HANGING_AFTER


def test_grpc_has_pings_instead():
    """A silent stream of gRPC is none of Envoy's business: its connection is asked, and gateways' soonest."""
    grpc = [one for one in edge_routes(split=(("gateway@v1", 1),)) if is_grpc(one)]
    assert grpc
    assert all(one.route.retry_policy.per_try_idle_timeout is None for one in grpc)
    within = {service: longest_silence_s(service) for service in (Service.GATEWAY, Service.WORKER)}
    assert within == {Service.GATEWAY: 8, Service.WORKER: 40}


def test_nothing_is_kept_alive_where_nothing_answers():
    """Routes that refuse have no gateway to ask."""
    refusing = [one for one in edge_routes(split=()) if not is_grpc(one)]
    assert all(one.route is None and not one.request_headers_to_add for one in refusing)


def longest_silence_s(service: Service) -> float:
    """How long a connection to a service may be dead before Envoy knows."""
    made = make_cluster(Cluster("one@v1", service, (Endpoint("127.0.0.1", 1),)), by_envoy=True)
    (options,) = made.typed_extension_protocol_options.values()
    unpacked: Message = options.unpack()
    assert isinstance(unpacked, upstream.HttpProtocolOptions)
    pings = unpacked.explicit_http_config.http2_protocol_options.connection_keepalive
    return (pings.interval + pings.timeout).total_seconds()
