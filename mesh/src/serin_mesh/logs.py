"""Logs of a process: dotted event names, facts in keys, one line an event.

People at a terminal get colours, everything else gets JSON. Never prompt text. Knows nothing about what is logged.
"""

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

from serin_mesh import telemetry
from serin_mesh.settings import ServiceSettings


def configure_logs(service: str, settings: ServiceSettings, stream: TextIO | None = None) -> None:
    """Send this process's logs, and those of libraries that warn, to one stream (default: stderr)."""
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    identity = {"service": service} | ({"instance": settings.instance} if settings.instance else {})

    def name_process(_: Any, __: str, event: EventDict) -> EventDict:
        return {**event, **identity}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_trace,
        name_process,
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(out, [*shared, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render])


get = structlog.get_logger


def _name_trace(_: Any, __: str, event: EventDict) -> EventDict:
    trace_id = telemetry.trace_id()
    if trace_id:
        event["trace_id"] = trace_id
    return event


def _adopt_standard_logging(out: TextIO, processors: list[Processor]) -> None:
    """Warnings of libraries look like our own lines; what they say below that is dropped."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
