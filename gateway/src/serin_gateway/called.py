"""Whole calls of tools, put together from the events that tell of them. Knows nothing about how a door writes one."""

from dataclasses import dataclass

from serin_gateway.events import CallEvent, ToolCallBegun, ToolCallGrew


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A whole call: its arguments are a JSON object as the model wrote it."""

    call_id: str
    name: str
    arguments_json: str


class CallGatherer:
    """Puts together the calls of one choice; one that breaks off is none."""

    def __init__(self) -> None:
        self._begun: ToolCallBegun | None = None
        self._arguments: list[str] = []

    def take(self, event: CallEvent) -> ToolCalled | None:
        """The call that an event completes."""
        if isinstance(event, ToolCallBegun):
            self._begun, self._arguments = event, []
        elif isinstance(event, ToolCallGrew):
            self._arguments.append(event.arguments_json)
        elif event.is_whole and self._begun is not None:
            return ToolCalled(self._begun.call_id, self._begun.name, "".join(self._arguments))
        return None
