"""Who calls, by certificate, and whether that service may call this method.

On a plain loopback listener everybody is trusted: whoever reaches it is on this machine.
"""

from collections.abc import Collection, Mapping
from typing import Any

from serin_mesh.call import Caller, enter_call
from serin_mesh.errors import MeshError, Reason
from serin_mesh.interceptors.onion import Handle, Layer
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.tls import TRUST_DOMAIN, peer_service

Callers = Mapping[str, Collection[str]]
"""Services that may call, by method ``/package.Service/Method`` or by service ``/package.Service/``.

A method's own row beats its service's. Methods without a row are open to every service of the mesh.
"""


def identify_callers(*, encrypted: bool, callers: Callers) -> Layer:
    """Refuse callers without an identity of the mesh, and callers that a method is not meant for."""

    def layer(handle: Handle) -> Handle:
        async def identified(rpc: Rpc) -> Any:
            caller = Caller(trusted=True)
            if encrypted:
                caller = Caller(peer_service(rpc.context.auth_context()))
                if caller.service is None:
                    raise MeshError(
                        Reason.IDENTITY_REFUSED,
                        f"the caller's certificate names no service of the mesh ({TRUST_DOMAIN}<service>)",
                    )
                allowed = callers.get(rpc.method) or callers.get(rpc.method.rpartition("/")[0] + "/")
                if allowed is not None and caller.service not in allowed:
                    raise MeshError(
                        Reason.IDENTITY_REFUSED,
                        f"{rpc.method[1:]} is for {', '.join(sorted(allowed))}; the caller is {caller.service}",
                    )
            rpc.served.caller = caller
            enter_call(rpc.served)
            return await handle(rpc)

        return identified

    return layer
