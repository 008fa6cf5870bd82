"""A process that answers jobs and may be killed at any moment: frames in, frames out, limits of its own.

A frame is its length in 4 bytes, little endian, and JSON. The first job sets the process up; it names ``memory_bytes``,
the address space it may use, and ``alarm_s``, after which a job ends the process even when nobody is there to kill it.
Knows nothing about what is answered.
"""

import json
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(begin: Callable[[dict[str, Any]], tuple[dict[str, Any], Answer | None]]) -> int:
    """Serve until standard input ends.

    Args:
        begin: from the first job to its answer, and to what answers the further ones; None ends the process.
    """
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = read_frame(source)
    if setup is None:
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (setup["memory_bytes"], setup["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    first, answer = begin(setup)
    write_frame(sink, first)
    while answer is not None and (job := read_frame(source)) is not None:
        # The parent kills a slow child; the alarm does it when there is no parent any more.
        signal.setitimer(signal.ITIMER_REAL, setup["alarm_s"])
        result = answer(job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(sink, result)
    return 0


def read_frame(source: BinaryIO) -> Any:
    """Read one frame; None at the end of the stream."""
    head = source.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    return json.loads(source.read(length))


def write_frame(sink: BinaryIO, value: Any) -> None:
    """Write one frame."""
    sink.write(frame(value))
    sink.flush()


def frame(value: Any) -> bytes:
    """One frame as bytes."""
    body = json.dumps(value).encode()
    return struct.pack("<I", len(body)) + body
