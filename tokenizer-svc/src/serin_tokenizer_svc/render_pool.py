"""Chat templates rendered in processes that are killed when they take too long.

Knows nothing about what is rendered: a job is a template's name and its variables, the result is text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serin_tokenizer_svc.child import frame
from serin_tokenizer_svc.children import ChildEnded, Children, ChildrenBusy, ChildStuck, Program
from serin_tokenizer_svc.errors import FolderRefused, RenderBusy, TemplateLimit, TemplateRejected


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What one rendering may use.

    Attributes:
        timeout_s: wall-clock seconds.
        output_chars: characters written.
        memory_bytes: address space of a render process.
        num_processes: renderings that run at once.
        num_waiting: renderings that may wait for a process.
    """

    timeout_s: float = 1.0
    output_chars: int = 8 << 20
    memory_bytes: int = 512 << 20
    num_processes: int = 2
    num_waiting: int = 256


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What a compiled template says of itself: variables it reads, literal strings in it."""

    variables: frozenset[str]
    literals: tuple[str, ...]


class RenderPool:
    """Renders templates in processes of its own; an asynchronous context manager.

    Raises:
        FolderRefused: on entry, when a template does not compile.
    """

    def __init__(self, templates: Mapping[str, str], limits: RenderLimits) -> None:
        setup = {
            "templates": dict(templates),
            "memory_bytes": limits.memory_bytes,
            "alarm_s": 2 * limits.timeout_s + 1,
        }
        self._limits = limits
        self.children = Children(
            Program("serin_tokenizer_svc.render_child", setup, self._started),
            num_processes=limits.num_processes,
            num_waiting=limits.num_waiting,
            timeout_s=limits.timeout_s,
        )
        self.facts: Mapping[str, TemplateFacts] = {}

    @property
    def num_kills(self) -> int:
        """Processes that were killed or died."""
        return self.children.num_kills

    @property
    def num_waiting(self) -> int:
        """Renderings that wait for a process."""
        return self.children.num_waiting

    async def __aenter__(self) -> Self:
        try:
            await self.children.__aenter__()
        except (TimeoutError, ChildEnded) as error:
            raise FolderRefused(
                f"the process that compiles the chat template did not start: {type(error).__name__}"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.children.__aexit__(kind, error, trace)

    async def render(self, template: str, variables: Mapping[str, Any], continue_tag: str | None = None) -> str:
        """Render one conversation.

        Raises:
            TemplateRejected: the template refuses or fails.
            TemplateLimit: it took too long, wrote too much or needed too much memory.
            RenderBusy: too many renderings wait already.
        """
        job = frame(
            {
                "template": template,
                "variables": variables,
                "output_limit": self._limits.output_chars,
                "continue_tag": continue_tag,
            }
        )
        try:
            answer = await self._ask(job)
        except ChildEnded:  # perhaps not for this job: the machine may have been short of memory
            try:
                answer = await self._ask(job)
            except ChildEnded:
                raise TemplateLimit(
                    "the chat template's process died twice; it probably needs too much memory"
                ) from None
        if "text" in answer:
            text: str = answer["text"]
            return text
        if "limit" in answer:
            raise TemplateLimit(answer["limit"])
        raise TemplateRejected(answer["refused"])

    async def _ask(self, job: bytes) -> dict[str, Any]:
        try:
            return await self.children.ask(job)
        except ChildStuck as error:
            raise TemplateLimit(f"the chat template ran {error}") from None
        except ChildrenBusy as error:
            raise RenderBusy(f"conversations to be rendered: {error}") from None

    def _started(self, answer: dict[str, Any]) -> None:
        if "broken" in answer:
            raise FolderRefused(f"chat template {answer['broken']!r}: {answer['error']}")
        self.facts = {
            name: TemplateFacts(frozenset(facts["variables"]), tuple(facts["literals"]))
            for name, facts in answer["templates"].items()
        }
