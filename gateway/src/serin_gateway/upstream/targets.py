"""How a service is reached: one channel for each service and model, and what every call carries.

By default targets are those of the control plane (``xds:///worker.small``); `FixedTargets` names plain addresses.
Knows nothing about what is called.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from serin_mesh.call import LANE_KEY, REQUEST_KEY, TENANT_KEY, VOCABULARY_KEY
from serin_mesh.channels import ChannelSettings, MeshChannel, connect
from serin_mesh.pick import pick_cookie

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.narrow import connect_narrow

S = TypeVar("S")

Metadata = tuple[tuple[str, str | bytes], ...]


class Targets(Protocol):
    """Names what a channel is opened to."""

    def target(self, service: str, model: str = "") -> str:
        """The target of a service; ``model`` empty for services that serve all models."""


class ControlPlaneTargets:
    """Targets that the control plane routes."""

    def target(self, service: str, model: str = "") -> str:
        """``xds:///<service>.<model>``, or ``xds:///<service>``."""
        return f"xds:///{service}.{model}" if model else f"xds:///{service}"


class FixedTargets:
    """Plain addresses by ``service`` or ``service.model``: the twin of the control plane's routes."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses

    def target(self, service: str, model: str = "") -> str:
        """The address given for the service."""
        return self._addresses[f"{service}.{model}" if model else service]


class Channels:
    """The channels of this gateway, opened when first needed, closed together."""

    def __init__(self, settings: ChannelSettings, targets: Targets) -> None:
        self._settings = settings
        self._targets = targets
        self._open: dict[tuple[str, str], MeshChannel] = {}
        self._stubs: dict[tuple[str, str], Any] = {}

    def stub(self, make: Callable[[MeshChannel], S], service: str, model: str = "") -> S:
        """The stub of a service, made once."""
        stub: S | None = self._stubs.get((service, model))
        if stub is None:
            stub = self._stubs[service, model] = make(self.to(service, model))
        return stub

    def to(self, service: str, model: str = "") -> MeshChannel:
        """The channel to a service."""
        channel = self._open.get((service, model))
        if channel is None:
            target = self._targets.target(service, model)
            name = f"{service}.{model}" if model else service
            if service == "worker":
                channel = connect_narrow(target, self._settings, service=name)
            else:
                channel = connect(target, self._settings, echo_lane=False, service=name)
            self._open[service, model] = channel
        return channel

    async def close(self) -> None:
        """Close them all."""
        for channel in self._open.values():
            await channel.close()
        self._open.clear()
        self._stubs.clear()


def call_metadata(scope: CallScope) -> tuple[tuple[str, str], ...]:
    """What every call made for a request says: its lane, the request, the tenant."""
    return (
        (LANE_KEY, scope.lane.lane),
        (VOCABULARY_KEY, scope.lane.vocabulary_digest),
        *caller_metadata(scope),
    )


def caller_metadata(scope: CallScope) -> tuple[tuple[str, str], ...]:
    """That part of it which does not decide where the call goes."""
    return ((REQUEST_KEY, scope.request_id), (TENANT_KEY, scope.tenant_key))


def pinned_metadata(scope: CallScope, worker: Worker) -> Metadata:
    """The same, pinned to one worker."""
    return (*call_metadata(scope), pick_cookie(worker.cluster, worker.endpoint))
