"""What a log may say of an exception: its type and its place, and its message only where that cannot quote a request.

Messages of foreign exceptions often hold the value that offended them, and in this mesh that value can be a prompt.
"""

import traceback
from typing import Any

from serin_mesh.errors import MeshError

MAX_FRAMES = 12

_MESSAGE_IS_OURS = (MeshError, OSError, TimeoutError)


def failure_facts(error: BaseException, *, with_message: bool = False) -> dict[str, Any]:
    """Keys for a log line: ``error``, ``place`` (innermost frame last), and ``message`` where it is safe.

    Args:
        error: what was raised.
        with_message: give the message in any case; for debugging on a developer's own machine.
    """
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    facts: dict[str, Any] = {
        "error": type(error).__name__,
        "place": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if with_message or isinstance(error, _MESSAGE_IS_OURS):
        facts["message"] = str(error)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        facts["cause"] = type(cause).__name__
    return facts
