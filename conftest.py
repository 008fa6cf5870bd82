"""What holds for the tests of every room.

Logs are lines of plain text: structlog's own default draws every exception with the variables of each frame, which
takes a second of CPU each. Triton's kernels are interpreted where there is no GPU: that is looked at when Triton is
first imported, which torch and transformers do on their own.
"""

import os
from pathlib import Path

import structlog

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
