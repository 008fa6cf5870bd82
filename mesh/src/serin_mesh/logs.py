"""Logs of a process: dotted event names, facts in keys, one line an event.

People at a terminal get colours, everything else gets JSON. Never prompt text: exceptions are logged by type and
place, and libraries by the first line of what they warn of. Knows nothing about what is logged.
"""

import json
import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor

from serin_mesh import telemetry
from serin_mesh.failure_facts import failure_facts
from serin_mesh.settings import ServiceSettings


def configure_logs(service: str, settings: ServiceSettings, stream: TextIO | None = None) -> None:
    """Send this process's logs, and those of libraries that warn, to one stream (default: stderr)."""
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    identity = {"service": service, "instance": settings.instance}

    def name_process(_: Any, __: str, event: EventDict) -> EventDict:
        first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
        return {**first, **identity, **event}

    def place_errors(_: Any, __: str, event: EventDict) -> EventDict:
        error = _exception(event.pop("exc_info", None))
        return event if error is None else {**event, **failure_facts(error, with_message=level <= logging.DEBUG)}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_trace,
        place_errors,
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console  # a person knows whom they look at
        else [name_process, structlog.processors.JSONRenderer(serializer=_as_json)]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(out, [_first_line, *shared, *render])


get = structlog.get_logger


def _as_json(event: EventDict, **_: Any) -> str:
    """A line. What is no JSON is written as Python shows it: no line is lost over it."""
    try:
        return orjson.dumps(event, default=repr).decode()
    except TypeError:  # half characters, integers above 64 bits
        return json.dumps(event, default=repr)


def _exception(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _name_trace(_: Any, __: str, event: EventDict) -> EventDict:
    trace_id = telemetry.trace_id()
    if trace_id:
        event["trace_id"] = trace_id
    return event


def _first_line(_: Any, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    return {
        "event": "library.warned",
        "logger": record.name,
        "message": str(event["event"]).partition("\n")[
            0
        ],  # the record's arguments are in it, and no longer in the record
        "exc_info": event.get("exc_info"),
    }


def _adopt_standard_logging(out: TextIO, processors: list[Processor]) -> None:
    """Warnings of libraries look like our own lines; what they say below that is dropped."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
