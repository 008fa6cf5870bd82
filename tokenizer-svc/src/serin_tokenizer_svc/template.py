"""A chat template in a sandbox: names it reads, conversations it renders.

Behaves as ``apply_chat_template`` of transformers does, so that a model sees here what it saw in training. Knows
nothing about tokenizers, processes or time limits; it runs inside a process that may be killed (``render_child``).
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

RESERVED_NAMES = frozenset({"messages", "tools", "add_generation_prompt"})
"""Variables that come from fields of the request and never from template arguments."""


class OutputLimit(Exception):
    """The template wrote more than it may."""


class CannotContinue(Exception):
    """The final message cannot be continued with this template."""


class ChatTemplate:
    """One compiled chat template.

    Raises:
        jinja2.TemplateSyntaxError: the source is not a template.
    """

    def __init__(self, source: str) -> None:
        environment = _sandbox()
        tree = environment.parse(source)
        self._template = environment.from_string(source)
        self.variables = frozenset(meta.find_undeclared_variables(tree)) - environment.globals.keys()
        self.literals = tuple(_literals(tree))

    def render(self, variables: Mapping[str, Any], output_limit: int) -> str:
        """Render to text of at most ``output_limit`` characters.

        Raises:
            OutputLimit: more came out.
            jinja2.TemplateError: the template refuses or fails; other exceptions come from its own operations.
        """
        pieces: list[str] = []
        num_chars = 0
        for piece in self._template.generate(**variables):
            num_chars += len(piece)
            if num_chars > output_limit:
                raise OutputLimit
            pieces.append(piece)
        return "".join(pieces)

    def render_open_ended(self, variables: Mapping[str, Any], output_limit: int, tag: str) -> str:
        """Render so that the text ends inside the last message.

        ``tag``, a word that nothing else contains, is written behind that message's text and cut off with all that
        follows it.

        Raises:
            CannotContinue: the last message has no text, or the template does not show it.
        """
        messages = [dict(message) for message in variables["messages"]]
        final_text = _append_to_text(messages[-1], f"{tag} ")
        rendered = self.render({**variables, "messages": messages}, output_limit)
        at = rendered.rfind(tag)
        if at < 0 or final_text.strip() not in rendered:
            raise CannotContinue("the template does not show the final message as it is, so it cannot be continued")
        spacing_kept = rendered[at + len(tag) : at + len(tag) + 1] == " "
        return rendered[:at] if spacing_kept else rendered[:at].rstrip()


def _append_to_text(message: dict[str, Any], tag: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        message["content"] = content + tag
        return content
    parts = [dict(part) for part in content or ()]
    for part in reversed(parts):
        if "text" in part:
            text: str = part["text"]
            part["text"] = text + tag
            message["content"] = parts
            return text
    raise CannotContinue("the final message has no text to continue")


def _sandbox() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = PlainDict()
    environment.globals["namespace"] = PlainNamespace
    return environment


class GenerationBlocks(Extension):
    """``{% generation %}…{% endgeneration %}``: marks what a model writes in training; shown as it stands."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the block into a call that returns its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller: Callable[[], str]) -> str:
        return caller()


class PlainDict:
    """The ``dict`` of templates: builds dictionaries, is not the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As ``dict(...)``."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As ``dict.fromkeys``."""
        return dict.fromkeys(*args)


class PlainNamespace(Namespace):
    """The ``namespace`` of templates: no attribute may begin with an underscore, which keeps Python's own out."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_underscore(name)
        Namespace.__init__(args[0], *args[1:], **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"namespace attribute {name!r} begins with an underscore")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _literals(tree: nodes.Template) -> set[str]:
    found = {data.data for data in tree.find_all(nodes.TemplateData)}
    found.update(const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str))
    return found
