"""The process in which chat templates run; it may be killed at any moment and nothing is lost.

Reads frames from standard input and answers each on standard output, one at a time. Knows templates, not tokenizers:
it stays small in memory. A frame is its length in 4 bytes, little endian, and JSON. The first frame sets it up:

    {"templates": {name: source}, "memory_bytes", "alarm_s"}
        ->  {"templates": {name: {"variables", "literals"}}} or {"broken": name, "error"}

and each further one asks for a rendering:

    {"template": name, "variables", "output_limit", "continue_tag": word or null}
        ->  {"text"} or {"refused": why} or {"limit": why}
"""

import json
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import jinja2

from serin_tokenizer_svc.template import CannotContinue, ChatTemplate, OutputLimit


def main() -> int:
    """Serve until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = read_frame(source)
    if setup is None:
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (setup["memory_bytes"], setup["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        templates, catalog = _compile(setup["templates"])
    except BrokenTemplate as error:
        write_frame(sink, {"broken": error.name, "error": str(error)})
        return 0
    write_frame(sink, {"templates": catalog})
    while (job := read_frame(source)) is not None:
        # The parent kills a slow child; the alarm does it when there is no parent any more.
        signal.setitimer(signal.ITIMER_REAL, setup["alarm_s"])
        answer = _answer(templates[job["template"]], job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(sink, answer)
    return 0


class BrokenTemplate(Exception):
    """A template that does not compile."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


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


def _compile(sources: dict[str, str]) -> tuple[dict[str, ChatTemplate], dict[str, dict[str, list[str]]]]:
    templates: dict[str, ChatTemplate] = {}
    for name, source in sources.items():
        try:
            templates[name] = ChatTemplate(source)
        except jinja2.TemplateSyntaxError as error:
            raise BrokenTemplate(name, f"line {error.lineno}: {error.message}") from error
        except Exception as error:  # whatever a hostile source makes the compiler raise
            raise BrokenTemplate(name, f"{type(error).__name__}: {error}") from error
    catalog = {
        name: {"variables": sorted(template.variables), "literals": sorted(template.literals)}
        for name, template in templates.items()
    }
    return templates, catalog


def _answer(template: ChatTemplate, job: dict[str, Any]) -> dict[str, str]:
    variables, limit, tag = job["variables"], job["output_limit"], job["continue_tag"]
    try:
        text = template.render(variables, limit) if tag is None else template.render_open_ended(variables, limit, tag)
        text.encode()  # half a surrogate pair is no text
    except UnicodeEncodeError:
        return {"refused": "the chat template wrote characters that are no Unicode text"}
    except OutputLimit:
        return {"limit": f"the chat template wrote more than {limit} characters"}
    except MemoryError:
        return {"limit": "the chat template needed too much memory"}
    except (RecursionError, OverflowError) as error:
        return {"limit": f"the chat template went too far: {error}"}
    except CannotContinue as error:
        return {"refused": str(error)}
    except jinja2.TemplateError as error:
        return {"refused": f"the chat template refused the conversation: {error.message}"}
    except Exception as error:  # noqa: BLE001 - a template's own operations raise anything
        return {"refused": f"the chat template failed on the conversation: {type(error).__name__}: {error}"}
    return {"text": text}


if __name__ == "__main__":
    sys.exit(main())
