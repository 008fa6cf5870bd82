"""Sessions as numbers: the same session is the same number at every gateway, and nobody else can tell which it is.

Knows nothing about lanes or requests.
"""

import hashlib
import hmac


class Sessions:
    """Digests of sessions.

    Args:
        mesh_secret: what all gateways of a mesh share.
    """

    def __init__(self, mesh_secret: bytes) -> None:
        self._key = hmac.new(mesh_secret, b"serin.session", hashlib.sha256).digest()

    def number(self, session: str) -> int:
        """64 bits of a session, given as tenant and sticky key (keyed BLAKE2b, RFC 7693); 0: there is none."""
        if not session:
            return 0
        raw = session.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(raw, key=self._key, digest_size=8).digest(), "big")
