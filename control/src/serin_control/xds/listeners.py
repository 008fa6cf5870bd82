"""Messages for the listeners of `xds:///` clients: one for each target. Pure functions."""

from datetime import timedelta

from betterproto2 import Message
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.http.stateful_session import v3 as session
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.stateful_session.cookie import v3 as cookie
from envoy_data_plane.envoy.type.http import v3 as http
from envoy_data_plane.google.protobuf import Any

from serin_control.xds.ads import ADS

PICK_COOKIE = "serin-pick"
"""Cookie that names one endpoint of the routed cluster, base64 of ``ip:port;cluster``; gone: the normal pick."""


def make_listener(target: str) -> listener.Listener:
    """What a client that dials ``xds:///<target>`` asks for first."""
    manager = hcm.HttpConnectionManager(
        rds=hcm.Rds(config_source=ADS, route_config_name=target), http_filters=[_pick(), router_filter()]
    )
    return listener.Listener(name=target, api_listener=listener.ApiListener(api_listener=Any.pack(manager)))


def router_filter() -> hcm.HttpFilter:
    """The filter that forwards; it must be the last."""
    return _filter("envoy.filters.http.router", router.Router())


def _pick() -> hcm.HttpFilter:
    pick = cookie.CookieBasedSessionState(cookie=http.Cookie(name=PICK_COOKIE, path="/", ttl=timedelta(0)))
    state = core.TypedExtensionConfig(name="envoy.http.stateful_session.cookie", typed_config=Any.pack(pick))
    return _filter("envoy.filters.http.stateful_session", session.StatefulSession(session_state=state))


def _filter(name: str, config: Message) -> hcm.HttpFilter:
    return hcm.HttpFilter(name=name, typed_config=Any.pack(config))
