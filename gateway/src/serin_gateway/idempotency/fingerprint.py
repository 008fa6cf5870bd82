"""What tells a repeat from another request: a digest of all that was asked.

Knows nothing about what the parts mean.
"""

import hashlib
from collections.abc import Sequence


def fingerprint(name: bytes, body: bytes, steering: Sequence[str] = ()) -> str:
    """A digest of 32 hexadecimal digits.

    Args:
        name: of the endpoint or method; without NUL.
        body: as it was sent.
        steering: what was said beside the body and changes the answer, each thing at its place; empty: not said.
    """
    # Where nothing was said beside it, the digest is the one that answers kept by earlier versions have.
    said = "\0".join(steering).encode() if any(steering) else b""
    beside = hashlib.blake2b(said).digest() if said else b""
    return hashlib.blake2b(name + b"\0" + body, digest_size=16, key=beside).hexdigest()
