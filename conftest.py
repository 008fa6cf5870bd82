"""What holds for the tests of every room: logs are lines of plain text.

structlog's own default draws every exception with the variables of each frame, which takes a second of CPU each.
"""

import structlog

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
