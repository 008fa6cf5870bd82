"""What Envoy is started with: who it is and where the control planes are; everything else comes by xDS.

``python -m serin_control.envoy_bootstrap --control host:port[,host:port] [--admin-port N] [--tls-dir DIR]`` prints it;
``deploy/envoy/envoy.yaml`` is that for the compose topology.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from serin_control.admission import split_endpoint

CONTROL_CLUSTER = "control-plane"
MAX_DOWNSTREAM_CONNECTIONS = 50_000
MAX_HEAP_BYTES = 1 << 30
"""Memory at which Envoy takes no more connections; from 90 % of it on, it sheds load step by step."""


def envoy_bootstrap(
    control: Sequence[str],
    *,
    node: str = "edge",
    admin_port: int = 9901,
    admin_socket: str = "",
    tls_dir: str = "",
    max_heap_bytes: int = MAX_HEAP_BYTES,
) -> dict[str, Any]:
    """Envoy's bootstrap.

    Args:
        control: control planes, ``host:port`` each.
        node: name of this Envoy, for alarms and logs.
        admin_port: port of Envoy's own pages, on loopback only; 0: any free one.
        admin_socket: path of a Unix socket for them, instead of a port.
        tls_dir: folder on Envoy's machine with ca.pem, cert.pem and key.pem; empty: plain, for loopback.
        max_heap_bytes: most memory.

    Raises:
        ValueError: an address is not ``host:port``.
    """
    return {
        "node": {"id": node, "cluster": "edge"},
        "admin": {
            "address": {"pipe": {"path": admin_socket, "mode": 0o600}}
            if admin_socket
            else _address("127.0.0.1", admin_port)
        },
        "application_log_config": {"log_format": {"json_format": _LOG_LINE}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL_CLUSTER}}],
            },
            "cds_config": _by_ads(),
            "lds_config": _by_ads(),
        },
        "static_resources": {"clusters": [_control_cluster(control, tls_dir)]},
        "overload_manager": _overload_manager(max_heap_bytes),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print a bootstrap; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serin_control.envoy_bootstrap", description=__doc__)
    parser.add_argument("--control", required=True, help="control planes, host:port, separated by commas")
    parser.add_argument("--admin-port", type=int, default=9901)
    parser.add_argument("--tls-dir", default="")
    parser.add_argument("--node", default="edge")
    flags = parser.parse_args(argv)
    try:
        bootstrap = envoy_bootstrap(
            flags.control.split(","), node=flags.node, admin_port=flags.admin_port, tls_dir=flags.tls_dir
        )
    except ValueError as error:
        parser.error(f"--control: {error}")
    sys.stdout.write(yaml.safe_dump(bootstrap, sort_keys=False))
    return 0


_LOG_LINE = {"timestamp": "%Y-%m-%dT%H:%M:%S.%fZ", "level": "%l", "event": "edge.%n", "message": "%j"}
_MONITORS = "envoy.resource_monitors"


def _overload_manager(max_heap_bytes: int) -> dict[str, Any]:
    """Bounds connections and memory. Nearing the latter, what is new suffers; no running answer is cut."""
    heap = _monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=max_heap_bytes)
    connections = _monitor(
        "global_downstream_max_connections",
        "downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=MAX_DOWNSTREAM_CONNECTIONS,
    )
    steps = {
        "shrink_heap": 0.90,
        "disable_http_keepalive": 0.92,
        "stop_accepting_requests": 0.95,
        "stop_accepting_connections": 0.98,
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [heap, connections],
        "actions": [
            {"name": f"envoy.overload_actions.{action}", "triggers": [_above(share)]} for action, share in steps.items()
        ],
    }


def _monitor(name: str, message: str, **config: int) -> dict[str, Any]:
    kind = f"type.googleapis.com/envoy.extensions.resource_monitors.{message}"
    return {"name": f"{_MONITORS}.{name}", "typed_config": {"@type": kind, **config}}


def _above(share: float) -> dict[str, Any]:
    return {"name": f"{_MONITORS}.fixed_heap", "threshold": {"value": share}}


def _by_ads() -> dict[str, Any]:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _control_cluster(control: Sequence[str], tls_dir: str) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(*split_endpoint(address.strip()))}} for address in control]
    http2 = {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
    cluster = {
        "name": CONTROL_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
        "load_assignment": {"cluster_name": CONTROL_CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return cluster | ({"transport_socket": _mutual_tls(tls_dir)} if tls_dir else {})


def _mutual_tls(folder: str) -> dict[str, Any]:
    identity = {"san_type": "URI", "matcher": {"exact": "spiffe://serin/control"}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "control",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": f"{folder}/cert.pem"},
                        "private_key": {"filename": f"{folder}/key.pem"},
                        "watched_directory": {"path": folder},
                    }
                ],
                "validation_context": {
                    "trusted_ca": {"filename": f"{folder}/ca.pem"},
                    "watched_directory": {"path": folder},
                    "match_typed_subject_alt_names": [identity],
                },
            },
        },
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


if __name__ == "__main__":
    sys.exit(main())
