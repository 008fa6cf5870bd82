"""Channels to other services, by ``xds:///<service>.<model>`` or ``host:port``.

Every call gets a deadline (never later than that of the call being served), the trace, the request id and the lane
of the conversation; every failure arrives as a MeshError. Knows nothing about the services behind.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import grpc

from serin_mesh import telemetry
from serin_mesh.call import LANE_KEY, REQUEST_KEY, TENANT_KEY, VOCABULARY_KEY, remaining_s, request_id
from serin_mesh.client_call import MeshCall
from serin_mesh.kept_status import keep_status
from serin_mesh.lane_memory import model_of, remembered_lanes
from serin_mesh.live_channel import LiveChannel
from serin_mesh.methods import is_open_ended
from serin_mesh.pick import pick_cookie
from serin_mesh.tls import Identity, IdentityFiles, channel_credentials

__all__ = [
    "LANE_KEY",
    "REQUEST_KEY",
    "TENANT_KEY",
    "VOCABULARY_KEY",
    "MeshChannel",
    "connect",
    "pick_cookie",
    "use_control_plane",
]

MAX_MESSAGE_BYTES = 64 << 20
KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
MIN_DEADLINE_S = 0.001

Metadata = Iterable[tuple[str, str | bytes]]


class ChannelSettings(Protocol):
    """The part of the settings that channels need."""

    @property
    def tls_dir(self) -> Path | None: ...
    @property
    def control(self) -> str: ...
    @property
    def instance(self) -> str: ...


def use_control_plane(settings: ChannelSettings) -> None:
    """Tell gRPC where the control planes are; once a process, before its first channel to ``xds:///`` anything.

    Raises:
        ValueError: no control plane is configured.
    """
    servers = control_addresses(settings.control)
    if not servers:
        raise ValueError("--control: '': accepted: the control planes, host:port, separated by commas")
    credentials: dict[str, Any] = {"type": "insecure"}
    if settings.tls_dir is not None:
        files = {
            "ca_certificate_file": str(settings.tls_dir / "ca.pem"),
            "certificate_file": str(settings.tls_dir / "cert.pem"),
            "private_key_file": str(settings.tls_dir / "key.pem"),
            "refresh_interval": "10s",
        }
        credentials = {"type": "tls", "config": files}
    features = ["xds_v3", "ignore_resource_deletion"]
    bootstrap = {
        "xds_servers": [
            {"server_uri": server, "channel_creds": [credentials], "server_features": features} for server in servers
        ],
        "node": {"id": settings.instance},
    }
    os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps(bootstrap)


def control_addresses(control: str) -> list[str]:
    """Addresses of a comma-separated list."""
    return [address.strip() for address in control.split(",") if address.strip()]


def connect(
    target: str,
    settings: ChannelSettings,
    *,
    deadline_s: float = 10.0,
    echo_lane: bool = True,
    service: str = "",
) -> "MeshChannel":
    """A channel to a service; close it, or use it as an async context manager.

    Args:
        target: ``xds:///worker.small``, ``xds:///cache`` or ``host:port``.
        settings: TLS and identity of this process.
        deadline_s: seconds that a call gets whose caller gives no ``timeout``; watches get none.
        echo_lane: send the lane of the conversation's last answer.
        service: for ``host:port`` with TLS, the service whose certificate is expected there; empty: the certificate
            must name the host itself.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    if service and settings.tls_dir is not None:
        options.append(("grpc.ssl_target_name_override", service))

    def dial(identity: Identity | None) -> grpc.aio.Channel:
        if identity is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, channel_credentials(identity), options=options)

    files = IdentityFiles(settings.tls_dir) if settings.tls_dir is not None else None
    return MeshChannel(LiveChannel(dial, files), deadline_s, model_of(target) if echo_lane else None)


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls carry the context of the call being served."""

    def __init__(self, live: LiveChannel, deadline_s: float, lane_model: str | None) -> None:
        self._live = live
        self._deadline_s = deadline_s
        self._lane_model = lane_model

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A callable that takes a request and returns an awaitable call."""
        return self._callable("unary_unary", method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A callable that takes a request and returns a call to iterate."""
        return self._callable("unary_stream", method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A callable that takes an iterator of requests and returns an awaitable call."""
        return self._callable("stream_unary", method, args, kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A callable that takes an iterator of requests, or none, and returns a call to iterate, read and write."""
        return self._callable("stream_stream", method, args, kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Close all connections; running calls get ``grace`` seconds."""
        await self._live.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """State of the newest connection."""
        return self._live.current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the newest connection's state is another."""
        await self._live.current().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the newest connection stands."""
        await self._live.current().channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _callable(self, kind: str, method: str, args: Any, kwargs: Any) -> Callable[..., MeshCall]:
        open_ended = is_open_ended(method)
        is_request_streaming = kind.startswith("stream_")
        key = (kind, method)

        def make(channel: grpc.aio.Channel) -> Any:
            return getattr(channel, kind)(method, *args, **kwargs)

        def call(
            request: Any = None, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
        ) -> MeshCall:
            if "request_iterator" in options:
                request = options.pop("request_iterator")
            generation = self._live.current()
            lanes = remembered_lanes() if self._lane_model is not None else {}
            underlying = generation.callable(key, make)(
                request,
                timeout=timeout if open_ended else self._timeout_s(timeout),
                metadata=self._metadata(metadata, lanes),
                **options,
            )
            generation.hold(underlying)
            if is_request_streaming:
                keep_status(underlying)
            return MeshCall(underlying, lanes, self._lane_model)

        return call

    def _timeout_s(self, asked_s: float | None) -> float:
        timeout_s = self._deadline_s if asked_s is None else asked_s
        left_s = remaining_s()
        return timeout_s if left_s is None else max(MIN_DEADLINE_S, min(timeout_s, left_s))

    def _metadata(self, given: Metadata | None, lanes: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
        pairs = list(given or ())
        keys = {key for key, _ in pairs}
        if REQUEST_KEY not in keys and (identifier := request_id()):
            pairs.append((REQUEST_KEY, identifier))
        if LANE_KEY not in keys and self._lane_model is not None and (lane := lanes.get(self._lane_model)):
            pairs.append((LANE_KEY, lane))
        if telemetry.TRACE_KEY not in keys:
            pairs.extend(telemetry.inject())
        return tuple(pairs)
