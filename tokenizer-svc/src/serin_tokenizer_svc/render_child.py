"""The process in which chat templates run (``child.py``). Knows templates, not tokenizers: it stays small in memory.

The first job sets it up:

    {"templates": {name: source}, "memory_bytes", "alarm_s"}
        ->  {"templates": {name: {"variables", "literals"}}} or {"broken": name, "error"}

and each further one asks for a rendering:

    {"template": name, "variables", "output_limit", "continue_tag": word or null}
        ->  {"text"} or {"refused": why} or {"limit": why}
"""

import sys
from typing import Any

import jinja2

from serin_tokenizer_svc.child import Answer, serve
from serin_tokenizer_svc.template import CannotContinue, ChatTemplate, OutputLimit


class BrokenTemplate(Exception):
    """A template that does not compile."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def begin(setup: dict[str, Any]) -> tuple[dict[str, Any], Answer | None]:
    """Compile the templates."""
    try:
        templates, catalog = _compile(setup["templates"])
    except BrokenTemplate as error:
        return {"broken": error.name, "error": str(error)}, None
    return {"templates": catalog}, lambda job: _answer(templates[job["template"]], job)


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
    sys.exit(serve(begin))
