"""What Envoy writes down about each request: one JSON line on its output, in the shape of the mesh's own logs.

Never a body, a key or a query. Pure; knows nothing about routes or listeners.
"""

import json
from collections.abc import Mapping

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.stream import v3 as stream
from envoy_data_plane.google.protobuf import Any, Struct, Value

from serin_control.xds.clusters import METADATA


def _first(*commands: tuple[str, str]) -> str:
    operators = [{"command": command, "param": name} for command, name in commands]
    return f"%COALESCE({json.dumps({'operators': operators})})%"


FIELDS = {
    "timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
    "level": "info",
    "event": "edge.request",
    "request_id": _first(("RESP", "X-REQUEST-ID"), ("REQ", "SERIN-REQUEST-ID"), ("REQ", "X-REQUEST-ID")),
    "lane": _first(("RESP", "SERIN-LANE"), ("TRAILER", "SERIN-LANE")),
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "reason": "%RESP(SERIN-REASON)%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "cluster": _first(("UPSTREAM_METADATA", f"{METADATA}:cluster"), ("UPSTREAM_CLUSTER", "")),
    "upstream": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
}
"""Key to Envoy's command. What a request does not have is left out. ``cluster`` names the version that
answered, which may stand in for the one that was drawn; of a request that no endpoint got, the one that was drawn."""


def json_lines() -> accesslog.AccessLog:
    """The log of a listener."""
    log = stream.StdoutAccessLog(log_format=json_format(FIELDS, omit_empty=True))
    return accesslog.AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(log))


def json_format(fields: Mapping[str, object], *, omit_empty: bool = False) -> core.SubstitutionFormatString:
    """JSON with these keys; values are texts with Envoy's commands in them, or such mappings again."""
    return core.SubstitutionFormatString(json_format=_struct(fields), omit_empty_values=omit_empty)


def _struct(fields: Mapping[str, object]) -> Struct:
    return Struct(fields={key: _value(value) for key, value in fields.items()})


def _value(value: object) -> Value:
    return Value(struct_value=_struct(value)) if isinstance(value, Mapping) else Value(string_value=str(value))
