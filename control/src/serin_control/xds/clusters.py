"""Messages for clusters and their endpoints. Pure functions; knows nothing about routes, versions or clients."""

from datetime import timedelta

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.load_balancing_policies.client_side_weighted_round_robin import v3 as weighted
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request import v3 as least
from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin import v3 as round_robin
from envoy_data_plane.envoy.extensions.load_balancing_policies.wrr_locality import v3 as locality
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream
from envoy_data_plane.envoy.type import v3 as units
from envoy_data_plane.google.protobuf import Any, Struct, Value

from serin_control.instance import Service
from serin_control.xds.ads import ADS
from serin_control.xds.certificates import to_service
from serin_control.xds.outliers import outliers
from serin_control.xds.routing import Cluster, Endpoint

CONNECT_TIMEOUT = timedelta(seconds=1)
MAX_REQUESTS = 65_536
"""Calls in flight to one cluster from one client: a fuse against runaway callers, far above what queues admit."""

RETRY_PERCENT = 10.0
"""Most retries that Envoy has in flight to a cluster, as a share of its calls: repeats never become the load."""

MIN_RETRIES = 256
"""So many retries to a version of the gateway whatever their share: when all of it is dead, every call to it is one.
They are for the moment until Envoy leaves the dead out: some 50 ms, or 2 s where a machine is gone and none refuses."""

MIN_RETRIES_ELSEWHERE = 3
"""The same for other services, of which a call goes to no other version."""

ALL_WHILE_ANY = 1_000_000
"""Overprovisioning in percent: while any endpoint of a version can be called, the version has all of its calls. With
Envoy's 140 % a version of which half is draining would lose 30 % of its share to those that stand in for it."""

METADATA = "serin"
"""Namespace of what endpoints carry for the access log: ``cluster``, whose version answered."""

REST_IDLE = timedelta(seconds=60)
"""After how long Envoy closes an unused connection to a gateway's REST port, which closes them itself after 75 s: the
one who closes first must be the one who sends."""

KEEPALIVE = core.KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=10))
"""HTTP/2's pings to whoever Envoy calls over gRPC."""

GATEWAY_KEEPALIVE = core.KeepaliveSettings(interval=timedelta(seconds=3), timeout=timedelta(seconds=5))
"""The same to gateways: those who wait for one that hangs are callers from outside. gRPC answers pings in threads of
its own: one that is busy is not taken for one that hangs."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def make_cluster(spec: Cluster, *, by_envoy: bool = False, encrypted: bool = False) -> cluster.Cluster:
    """A cluster whose endpoints come by EDS.

    Args:
        spec: what it holds.
        by_envoy: Envoy calls it, else an `xds:///` client.
        encrypted: by mutual TLS, with Envoy's own identity. Never for `xds:///` clients, which bring credentials of
            their own.
    """
    return cluster.Cluster(
        name=spec.name,
        type=cluster.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster.ClusterEdsClusterConfig(eds_config=ADS, service_name=spec.name),
        lb_policy=cluster.ClusterLbPolicy.ROUND_ROBIN,
        load_balancing_policy=_balancing(spec.service),
        connect_timeout=CONNECT_TIMEOUT,
        common_lb_config=_balancing_basics(),
        circuit_breakers=_fuse(spec.service),
        outlier_detection=outliers(spec.service, by_envoy=by_envoy),
        typed_extension_protocol_options={_HTTP_OPTIONS: Any.pack(_protocol(spec))},
        transport_socket=_tls(spec) if encrypted else None,
    )


def make_assignment(spec: Cluster) -> endpoint.ClusterLoadAssignment:
    """The endpoints of a cluster, all in one locality, and below them those that stand in for it."""
    groups = ((spec.name, spec.endpoints), *spec.stand_ins)
    return endpoint.ClusterLoadAssignment(
        cluster_name=spec.name,
        endpoints=[
            endpoint.LocalityLbEndpoints(
                locality=core.Locality(region="serin", zone="mesh"),
                load_balancing_weight=1,
                lb_endpoints=[_lb_endpoint(at, name) for at in endpoints],
                priority=priority,
            )
            for priority, (name, endpoints) in enumerate(groups)
        ],
        policy=endpoint.ClusterLoadAssignmentPolicy(overprovisioning_factor=ALL_WHILE_ANY),
    )


def _tls(spec: Cluster) -> core.TransportSocket:
    return to_service(spec.service, "http/1.1" if spec.http1 else "h2")


def _lb_endpoint(at: Endpoint, cluster_name: str) -> endpoint.LbEndpoint:
    address = core.Address(socket_address=core.SocketAddress(address=at.host, port_value=at.port))
    health = core.HealthStatus.DRAINING if at.draining else core.HealthStatus.HEALTHY
    named = Struct(fields={"cluster": Value(string_value=cluster_name)})
    return endpoint.LbEndpoint(
        endpoint=endpoint.Endpoint(address=address),
        health_status=health,
        metadata=core.Metadata(filter_metadata={METADATA: named}),
    )


def _balancing(service: Service) -> cluster.LoadBalancingPolicy:
    """Envoy takes the first policy, grpcio the first it knows, which is the second (a NACK without the wrapper).

    Workers tell their load out of band (ORCA): grpcio weighs them by it.
    """
    inner = _by_load() if service is Service.WORKER else _policy("round_robin", round_robin.RoundRobin())
    return cluster.LoadBalancingPolicy(
        policies=[
            _policy("least_request", least.LeastRequest()),
            _policy(
                "wrr_locality",
                locality.WrrLocality(endpoint_picking_policy=cluster.LoadBalancingPolicy(policies=[inner])),
            ),
        ]
    )


def _by_load() -> cluster.LoadBalancingPolicyPolicy:
    return _policy(
        "client_side_weighted_round_robin",
        weighted.ClientSideWeightedRoundRobin(
            enable_oob_load_report=True,
            oob_reporting_period=timedelta(seconds=1),
            blackout_period=timedelta(seconds=2),
            weight_update_period=timedelta(seconds=1),
            weight_expiration_period=timedelta(seconds=10),
        ),
    )


def _policy(name: str, message: Message) -> cluster.LoadBalancingPolicyPolicy:
    config = core.TypedExtensionConfig(name=f"envoy.load_balancing_policies.{name}", typed_config=Any.pack(message))
    return cluster.LoadBalancingPolicyPolicy(typed_extension_config=config)


def _balancing_basics() -> cluster.ClusterCommonLbConfig:
    """Calls pinned to a draining endpoint reach it, and no share of failures makes Envoy ignore who is draining."""
    return cluster.ClusterCommonLbConfig(
        healthy_panic_threshold=units.Percent(value=0),
        override_host_status=core.HealthStatusSet(
            statuses=[core.HealthStatus.UNKNOWN, core.HealthStatus.HEALTHY, core.HealthStatus.DRAINING]
        ),
    )


def _fuse(service: Service) -> cluster.CircuitBreakers:
    min_retries = MIN_RETRIES if service is Service.GATEWAY else MIN_RETRIES_ELSEWHERE
    threshold = cluster.CircuitBreakersThresholds(
        max_connections=MAX_REQUESTS,
        max_pending_requests=MAX_REQUESTS,
        max_requests=MAX_REQUESTS,
        retry_budget=cluster.CircuitBreakersThresholdsRetryBudget(
            budget_percent=units.Percent(value=RETRY_PERCENT), min_retry_concurrency=min_retries
        ),
    )
    return cluster.CircuitBreakers(thresholds=[threshold])


def _protocol(spec: Cluster) -> upstream.HttpProtocolOptions:
    explicit = upstream.HttpProtocolOptionsExplicitHttpConfig
    if spec.http1:
        return upstream.HttpProtocolOptions(
            common_http_protocol_options=core.HttpProtocolOptions(idle_timeout=REST_IDLE),
            explicit_http_config=explicit(http_protocol_options=core.Http1ProtocolOptions()),
        )
    keepalive = GATEWAY_KEEPALIVE if spec.service is Service.GATEWAY else KEEPALIVE
    http2 = core.Http2ProtocolOptions(connection_keepalive=keepalive)
    return upstream.HttpProtocolOptions(explicit_http_config=explicit(http2_protocol_options=http2))
