"""Messages for Envoy's listeners at the edge. Pure functions; knows nothing about targets or clusters.

Neither listener knows the pick cookie: Envoy would hand it out to callers, and with it addresses of the inside.
"""

from collections.abc import Sequence
from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.request_id.uuid import v3 as uuid
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from serin_control.xds.access_log import json_format, json_lines
from serin_control.xds.ads import ADS
from serin_control.xds.certificates import from_callers
from serin_control.xds.edge import EDGE, MESH, EdgeSettings
from serin_control.xds.listeners import router_filter
from serin_control.xds.routes import STREAM_IDLE_TIMEOUT

CONNECTION_IDLE = timedelta(hours=1)
"""How long a connection without a request is kept."""

HEADERS_TIMEOUT = timedelta(seconds=10)
"""How long a caller may take to send the head of a request."""

_RETRY_AFTER_S = "1"

_TIMED_OUT = accesslog.ResponseFlagFilter(flags=["UT"])
"""The only time that upstreams are given is that of silence: `edge.HANGING_AFTER`."""

_HANGS = (
    "the gateway that had the request gives no sign of life: the request may have run, and was not repeated; ask again "
    "(an Idempotency-Key says that it is the same)"
)


def make_edge_listeners(settings: EdgeSettings) -> list[listener.Listener]:
    """The listeners of an edge: to the world, and, where asked for, to the mesh."""
    tls = from_callers() if settings.public_certificate else None
    world = _listener(EDGE, settings.host, settings.port, tls, replies=_openai_replies())
    if settings.mesh_port is None:
        return [world]
    return [world, _listener(MESH, settings.mesh_host, settings.mesh_port, None)]


def _listener(
    name: str, host: str, port: int, tls: core.TransportSocket | None, replies: hcm.LocalReplyConfig | None = None
) -> listener.Listener:
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm.Rds(config_source=ADS, route_config_name=name),
        http_filters=[router_filter()],
        use_remote_address=True,
        access_log=[json_lines()],
        request_id_extension=hcm.RequestIdExtension(typed_config=_untouched_ids()),
        preserve_external_request_id=True,
        local_reply_config=replies,
        stream_idle_timeout=STREAM_IDLE_TIMEOUT,
        request_headers_timeout=HEADERS_TIMEOUT,
        common_http_protocol_options=core.HttpProtocolOptions(
            idle_timeout=CONNECTION_IDLE,
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
        transport_socket=tls,
    )
    return listener.Listener(
        name=name,
        address=core.Address(socket_address=core.SocketAddress(address=host, port_value=port)),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=1_048_576,
    )


def _untouched_ids() -> Any:
    """Request ids are made where a caller brings none, and never written to: a caller finds its own in every log."""
    return Any.pack(uuid.UuidRequestIdConfig(pack_trace_reason=False))


def _openai_replies() -> hcm.LocalReplyConfig:
    """What Envoy itself answers has OpenAI's shape, so that SDKs show its sentence; gRPC callers get a status."""
    grpc = route.HeaderMatcher(
        name="content-type", string_match=matcher.StringMatcher(prefix="application/grpc"), invert_match=True,
        treat_missing_header_as_empty=True,
    )  # fmt: skip
    return hcm.LocalReplyConfig(
        mappers=[
            _hanging([accesslog.AccessLogFilter(response_flag_filter=_TIMED_OUT), _header(grpc)]),
            _mapper([_status_is(503), _header(grpc)], "server_error", [("retry-after", _RETRY_AFTER_S)]),
            _mapper([_status_over(500), _header(grpc)], "server_error"),
            _mapper([_header(grpc)], "invalid_request_error"),
        ]
    )


def _hanging(filters: Sequence[accesslog.AccessLogFilter]) -> hcm.ResponseMapper:
    """What Envoy calls 504 is a gateway that is lost, as when it is killed: no deadline of the caller's has passed."""
    mapper = _mapper(filters, "server_error", [("retry-after", _RETRY_AFTER_S)])
    mapper.status_code, mapper.body = 503, core.DataSource(inline_string=_HANGS)
    return mapper


def _mapper(
    filters: Sequence[accesslog.AccessLogFilter], kind: str, headers: Sequence[tuple[str, str]] = ()
) -> hcm.ResponseMapper:
    error = {"message": "%LOCAL_REPLY_BODY%", "type": kind, "param": "", "code": "edge_%RESPONSE_CODE%"}
    every = accesslog.AccessLogFilter(and_filter=accesslog.AndFilter(filters=list(filters)))
    return hcm.ResponseMapper(
        filter=every if len(filters) > 1 else filters[0],
        body_format_override=json_format({"error": error}),
        headers_to_add=[
            core.HeaderValueOption(header=core.HeaderValue(key=key, value=value)) for key, value in headers
        ],
    )


def _header(match: route.HeaderMatcher) -> accesslog.AccessLogFilter:
    return accesslog.AccessLogFilter(header_filter=accesslog.HeaderFilter(header=match))


def _status_is(status: int) -> accesslog.AccessLogFilter:
    return _status(accesslog.ComparisonFilterOp.EQ, status)


def _status_over(status: int) -> accesslog.AccessLogFilter:
    return _status(accesslog.ComparisonFilterOp.GE, status)


def _status(op: accesslog.ComparisonFilterOp, status: int) -> accesslog.AccessLogFilter:
    value = core.RuntimeUInt32(default_value=status, runtime_key=f"serin.edge.status_{status}")
    comparison = accesslog.ComparisonFilter(op=op, value=value)
    return accesslog.AccessLogFilter(status_code_filter=accesslog.StatusCodeFilter(comparison=comparison))
