"""One choice of an answer under guards: its reasoning, its text and its calls, as they become certain.

Knows nothing about tokens, lanes or doors.
"""

from collections.abc import Callable, Sequence

from serin_gateway.guards.failures import guard_unavailable
from serin_gateway.guards.json_text import JsonScreen
from serin_gateway.guards.screen import GuardFailed, Refusal, Screen
from serin_gateway.reading.parts import CallBegun, CallEnded, CallGrew, CallPart, Part, Reasoned, Said


class AnswerGuard:
    """Lets parts of one choice through.

    Args:
        screen: makes the screen of each text.

    Attributes:
        refusal: why nothing more goes through; None: it does.
        has_masked: whether something else stands in the place of what the model wrote.
    """

    def __init__(self, screen: Callable[[], Screen]) -> None:
        self._open = screen
        self._kind: type[Said] | type[Reasoned] = Said
        self._screen = screen()
        self._arguments: JsonScreen | None = None
        self.refusal: Refusal | None = None
        self.has_masked = False

    def read(self, parts: Sequence[Part], *, is_last: bool) -> list[Part]:
        """Those that may go on now, in order; with the last ones all that was held.

        Raises:
            MeshError: GUARD_UNAVAILABLE, nothing may any more.
        """
        try:
            return self._read(parts, is_last=is_last)
        except GuardFailed as failed:
            raise guard_unavailable(failed) from failed

    def _read(self, parts: Sequence[Part], *, is_last: bool) -> list[Part]:
        let: list[Part] = []
        for part in parts:
            if isinstance(part, CallBegun) or (isinstance(part, Said | Reasoned) and type(part) is not self._kind):
                self._end(let)
            if self.refusal is not None:
                break
            if isinstance(part, CallPart):
                self._call(part, let)
            else:
                self._kind = type(part)
                self._let(self._screen.feed(part.text), let)
        if is_last:
            self._end(let)
        return let

    def _call(self, part: CallPart, let: list[Part]) -> None:
        """A call whose arguments are refused breaks off; where nobody knows of it yet, it is not made."""
        if isinstance(part, CallBegun):
            self._arguments = JsonScreen(self._screen)
            let.append(part)
            return
        assert self._arguments is not None, "a call begins before it grows"
        passed = self._arguments.end() if isinstance(part, CallEnded) else self._arguments.feed(part.arguments_json)
        self._note(self._screen)
        begun = next((at for at in reversed(range(len(let))) if isinstance(let[at], CallBegun)), None)
        if self.refusal is not None and begun is not None:
            del let[begun:]
            return
        if passed:
            let.append(CallGrew(passed))
        if self.refusal is not None:
            let.append(CallEnded(is_whole=False))
        elif isinstance(part, CallEnded):
            let.append(part)
            self._screen = self._open()

    def _end(self, let: list[Part]) -> None:
        """The text ends here, for now: a call or another kind of text follows."""
        if self.refusal is None:
            self._let(self._screen.end(), let)
            self._screen = self._open()

    def _let(self, text: str, let: list[Part]) -> None:
        self._note(self._screen)
        if text:
            let.append(self._kind(text))

    def _note(self, screen: Screen) -> None:
        self.has_masked = self.has_masked or bool(screen.replacements)
        self.refusal = screen.refusal
