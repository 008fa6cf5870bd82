"""What the engine room can refuse or fail with.

::

    WorkerError
    ├── ModelRefused            a model folder that must not or cannot be served; names the file
    │   ├── LogitsNotFinite     the model computes NaN or infinity for any prompt
    │   └── NotEnoughMemory     needed and available bytes
    ├── RequestRefused          a request that was never started; names the parameter
    │   ├── PromptTooLong       both numbers
    │   ├── GrammarRefused      a grammar that no text can follow
    │   ├── GrammarsUnsupported no grammar can be followed with this model's ids
    │   ├── InputTooLong        an input to embed; both numbers
    │   ├── WrongKind           the model does something else
    │   └── QueueFull           try again later
    ├── RequestFailed           one started request; the others go on
    │   ├── NotFinite           the model produced NaN or infinity for it
    │   ├── NotComputed         the model failed on one of its inputs
    │   ├── OutOfMemory         its step needs more memory than there is
    │   ├── GrammarOverrun      its grammar needs more than a step may
    │   ├── ReaderTooSlow       its reader left too many tokens unread
    │   └── HandedOver          nothing is wrong with it; it should go on on another worker
    │       ├── DrainEnds       this one goes away before the answer is complete
    │       └── EngineStalled   this one's engine takes no step
    ├── OutOfBlocks             the KV cache has no block left (handled by preemption)
    ├── EngineStopped           the step loop ended; every request with it
    └── NumericsLost            the model computes no numbers any more; the worker should be replaced

Knows nothing about gRPC: service.py translates.
"""

from collections.abc import Callable, Mapping

Remedy = Mapping[str, int | str | None]
"""Fields of the configuration and values that would help; None: the field's own default."""


class WorkerError(Exception):
    """Every error of this distribution."""


class ModelRefused(WorkerError):
    """A model that is not served. ``file`` names what is wrong with it, where a file is to blame."""

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(f"{file}: {message}" if file else message)
        self.file = file


class LogitsNotFinite(ModelRefused):
    """The model computes NaN or infinity for any prompt."""


class NotEnoughMemory(ModelRefused):
    """Weights and the smallest useful KV cache need more memory than there is.

    Args:
        what: needs it.
        needed_bytes: of all of it.
        available_bytes: of the device.
        remedies: fields of the configuration and their values, each of which makes it fit.
        parts: how the bytes needed are made up, in brackets.
        why: what the system said, where it gave less than it had said to be available.
    """

    def __init__(
        self,
        what: str,
        needed_bytes: int,
        available_bytes: int,
        remedies: tuple[Remedy, ...],
        parts: str = "",
        why: str = "",
    ) -> None:
        self._fact = f"{what} needs {needed_bytes:,} bytes{parts} and {available_bytes:,} are available"
        if why:
            self._fact += f", of which not all were given while it was loaded ({why})"
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.remedies = remedies
        super().__init__(self.told())

    def told(self, name_of: Callable[[str], str] = str) -> str:
        """The sentence; ``name_of`` says what a field of the configuration is called where it is set."""
        fitting = [
            " ".join(f"{name_of(field)} {0 if value is None else value}" for field, value in one.items())
            for one in self.remedies
        ]
        if not fitting:
            return f"{self._fact}; no setting makes it fit: use a smaller model, or free memory"
        return f"{self._fact}; it fits with {', or with '.join(fitting)}"


class RequestRefused(WorkerError):
    """A request that cannot run as asked. ``parameter`` is the field to change."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class PromptTooLong(RequestRefused):
    """Prompt (with prior output) leaves no room for a token."""

    def __init__(self, num_prompt_tokens: int, context_length: int) -> None:
        super().__init__(
            "prompt",
            f"the prompt has {num_prompt_tokens} tokens and the context holds {context_length}, "
            "of which one must be left for the answer",
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.context_length = context_length


class GrammarRefused(RequestRefused):
    """A grammar that no text can follow, or that is none."""

    def __init__(self, message: str) -> None:
        super().__init__("grammar", message)


class GrammarsUnsupported(RequestRefused):
    """The model's decoder looks at neighbouring ids, so an id by itself has no bytes."""

    def __init__(self) -> None:
        super().__init__("grammar", "this model's tokens have no bytes of their own; no grammar is possible")


class InputTooLong(RequestRefused):
    """An input to embed is longer than the model's longest."""

    def __init__(self, index: int, num_tokens: int, max_tokens: int) -> None:
        super().__init__(f"runs[{index}]", f"runs[{index}] has {num_tokens} tokens; accepted: at most {max_tokens}")
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens


class WrongKind(RequestRefused):
    """The model does something else than what is asked."""

    def __init__(self, message: str) -> None:
        super().__init__("model", message)


class QueueFull(RequestRefused):
    """As many requests (``what``) wait as may wait."""

    def __init__(self, num_waiting: int, what: str = "requests") -> None:
        super().__init__("", f"{num_waiting} {what} are waiting, and no more may; try again later")
        self.num_waiting = num_waiting


class RequestFailed(WorkerError):
    """A request that started and cannot go on."""


class NotFinite(RequestFailed):
    """What the model computed for a request (``what``) are not numbers."""

    def __init__(self, what: str = "logits") -> None:
        super().__init__(f"the model produced {what} that are not finite for this request")


class NotComputed(RequestFailed):
    """The model failed on one of a request's inputs."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(f"the model failed on input {index}: {type(error).__name__}")


class OutOfMemory(RequestFailed):
    """What a request needs in one step is more memory than there is."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__(
            f"this worker's memory does not suffice for this request's step of {num_tokens} tokens; try again, "
            "or give the worker more memory (a smaller --kv-cache-bytes or --max-batched-tokens leaves more)"
        )


class GrammarOverrun(RequestFailed):
    """A request's grammar needs more time or memory than one step may take."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the grammar is too much work: {why}")


class ReaderTooSlow(RequestFailed):
    """Whoever reads a request's tokens stopped reading."""

    def __init__(self, num_unread_tokens: int) -> None:
        super().__init__(f"{num_unread_tokens} tokens were left unread, which is more than are kept")


class HandedOver(RequestFailed):
    """A request that should go on on another worker. ``cause`` tells programs why."""

    cause = ""


class DrainEnds(HandedOver):
    """This worker goes away before the answer is complete."""

    cause = "draining"

    def __init__(self) -> None:
        super().__init__("this worker's drain is over before the answer is complete; another one can go on with it")


class EngineStalled(HandedOver):
    """This worker's engine takes no step."""

    cause = "stalled"

    def __init__(self, stall_s: float) -> None:
        super().__init__(
            f"the engine has taken no step for {stall_s:g} s; another worker can go on (--stall-s is the time allowed)"
        )


class OutOfBlocks(WorkerError):
    """Fewer KV blocks are free or reclaimable than were asked for."""


class EngineStopped(WorkerError):
    """The step loop has ended; no request can run."""


class NumericsLost(WorkerError):
    """The model answers requests and a fixed question with what is not numbers."""

    def __init__(self, num_failures: int) -> None:
        super().__init__(
            f"{num_failures} requests in a row ended in logits that are not finite, and so did the worker's own check: "
            "its weights or its memory are damaged; this process ends so that another one replaces it"
        )
