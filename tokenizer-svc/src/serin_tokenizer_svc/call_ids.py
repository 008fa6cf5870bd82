"""Identifiers of calls, for templates that accept only their own kind.

Mistral's refuse every identifier that is not nine letters or digits. A caller's identifiers come from whoever answered
before, so they are translated, each always into the same one. Knows nothing about templates.
"""

import hashlib
import re
import string

LENGTH = 9
_ALPHABET = string.digits + string.ascii_letters
_SHORT = re.compile(f"[A-Za-z0-9]{{{LENGTH}}}")


def short_call_id(call_id: str) -> str:
    """An identifier of nine letters and digits; one that is so already stays."""
    if _SHORT.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.blake2b(call_id.encode(), digest_size=8).digest())
    digits = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
