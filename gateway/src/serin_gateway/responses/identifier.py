"""Identifiers of responses: they name their request and their conversation, and are nobody's to guess.

``resp_<request>.<24 hex digits of the conversation><24 of its own>``. Knows nothing about what is kept under them.
"""

import re
import secrets

_HALF_BYTES = 12
_ID = re.compile(r"resp_([A-Za-z0-9._-]{1,100})\.([0-9a-f]{24})[0-9a-f]{24}")


def new_response_id(request_id: str, previous_id: str = "") -> str:
    """An identifier for the answer to a request, in the conversation of what it continues or in one of its own."""
    conversation = conversation_of(previous_id) or secrets.token_hex(_HALF_BYTES)
    return f"resp_{request_id}.{conversation}{secrets.token_hex(_HALF_BYTES)}"


def conversation_of(response_id: str) -> str:
    """The conversation of a response; empty: this is no response's identifier."""
    found = _ID.fullmatch(response_id)
    return "" if found is None else found[2]


def request_of(response_id: str) -> str:
    """The request that a response answers; empty: this is no response's identifier."""
    found = _ID.fullmatch(response_id)
    return "" if found is None else found[1]
