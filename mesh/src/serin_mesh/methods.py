"""What a method's name says about how it must be treated.

Knows nothing about any service's messages. Names are full gRPC paths, ``/package.Service/Method``.
"""

_INFRASTRUCTURE = (
    "/grpc.health.",
    "/grpc.reflection.",
    "/grpc.channelz.",
    "/xds.service.orca.",
    "/envoy.service.discovery.",
)


def is_infrastructure(method: str) -> bool:
    """Whether a method serves the mesh itself (health, load, discovery); they are answered before readiness."""
    return method.startswith(_INFRASTRUCTURE)


_CARRIERS = ("Detokenize", "Work")


def carries_work(method: str) -> bool:
    """Whether a call carries work of other requests, and ends once they are over."""
    return method.rsplit("/", 1)[-1] in _CARRIERS


def is_open_ended(method: str) -> bool:
    """Whether a call lives as long as its parties do and therefore needs no deadline."""
    verb = method.rsplit("/", 1)[-1]
    return verb.startswith("Watch") or verb == "Announce" or carries_work(method) or is_infrastructure(method)
