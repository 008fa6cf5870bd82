"""A channel with a narrow receive window: what is not read yet waits at its sender.

A worker puts all tokens it has made since its last message into the next one. With gRPC's usual window thousands of
one-token messages pile up here before the worker notices that this gateway is busy; with a narrow one its messages grow
instead. Apart from the window it is as :func:`serin_mesh.channels.connect` makes it. Knows nothing about workers.
"""

from typing import Any

import grpc
from serin_mesh.channels import (
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    MAX_MESSAGE_BYTES,
    ChannelSettings,
    MeshChannel,
)
from serin_mesh.live_channel import LiveChannel
from serin_mesh.tls import Identity, IdentityFiles, channel_credentials

WINDOW_BYTES = 256
DEADLINE_S = 600.0


def connect_narrow(target: str, settings: ChannelSettings, *, service: str) -> MeshChannel:
    """A channel whose streams are read ahead by a few messages only."""
    options: list[tuple[str, Any]] = [
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),  # it would widen the window again
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    if settings.tls_dir is not None:
        options.append(("grpc.ssl_target_name_override", service))

    def dial(identity: Identity | None) -> grpc.aio.Channel:
        if identity is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, channel_credentials(identity), options=options)

    files = IdentityFiles(settings.tls_dir) if settings.tls_dir is not None else None
    return MeshChannel(LiveChannel(dial, files), DEADLINE_S, None)
