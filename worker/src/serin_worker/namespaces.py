"""Which prefixes a call may share: the root of its block keys, derived from the mesh secret.

Knows nothing about blocks or certificates.
"""

from dataclasses import dataclass

from serin_mesh.identity import cache_namespace


@dataclass(frozen=True, slots=True)
class Namespace:
    """``root`` of block keys, and the ``owner`` that all of a group's roots are purged by. Both empty: no sharing."""

    root: bytes = b""
    owner: bytes = b""


class Namespaces:
    """Namespaces of one KV digest under one mesh secret."""

    def __init__(self, mesh_secret: bytes, kv_digest: str) -> None:
        self._secret = mesh_secret
        self._kv_digest = kv_digest

    def of(self, group: str, salt: str = "") -> Namespace:
        """The namespace of a cache group; an empty group shares nothing."""
        if not group:
            return Namespace()
        owner = cache_namespace(self._secret, cache_group=group, kv=self._kv_digest)
        if not salt:
            return Namespace(owner, owner)
        return Namespace(cache_namespace(self._secret, cache_group=group, kv=self._kv_digest, salt=salt), owner)
