"""What holds for the tests of every room: logs are lines of plain text, and kernels for GPUs run without one.

structlog's own default draws every exception with the variables of each frame, which takes a second of CPU each.

Without a GPU Triton's kernels are run by its interpreter. Triton asks for that when it is imported, which torch or
transformers may do long before the tests that need it.
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
