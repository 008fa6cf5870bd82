"""The room's errors as the mesh's: one table at one edge.

Knows nothing about servers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from serin_mesh.errors import MeshError, Reason

from serin_worker.errors import (
    EngineStopped,
    GrammarOverrun,
    GrammarRefused,
    GrammarsUnsupported,
    HandedOver,
    InputTooLong,
    NotFinite,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    ReaderTooSlow,
    RequestRefused,
    WorkerError,
    WrongKind,
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the room's errors as the mesh's."""
    try:
        yield
    except WorkerError as error:
        raise to_mesh(error) from error


def to_mesh(error: WorkerError) -> MeshError:
    """What an error is called outside of this room."""
    match error:
        case PromptTooLong():
            counts = {"token_count": str(error.num_prompt_tokens), "max_token_count": str(error.context_length)}
            return MeshError(Reason.PROMPT_TOO_LONG, str(error), parameter=error.parameter, **counts)
        case InputTooLong():
            counts = {"token_count": str(error.num_tokens), "max_token_count": str(error.max_tokens)}
            return MeshError(Reason.PROMPT_TOO_LONG, str(error), parameter=error.parameter, **counts)
        case WrongKind():
            return MeshError(Reason.PARAMETER_UNSUPPORTED, str(error), parameter=error.parameter)
        case QueueFull():
            return MeshError(Reason.QUEUE_FULL, str(error), retry_after_s="1")
        case GrammarRefused():
            return MeshError(Reason.GRAMMAR_INVALID, str(error), parameter=error.parameter)
        case GrammarOverrun():
            return MeshError(Reason.GRAMMAR_LIMIT, str(error), parameter="grammar")
        case GrammarsUnsupported():
            return MeshError(Reason.PARAMETER_UNSUPPORTED, str(error), parameter=error.parameter)
        case RequestRefused():
            return MeshError(Reason.PARAMETER_INVALID, str(error), parameter=error.parameter)
        case NotFinite():
            return MeshError(Reason.NUMERICS_FAILED, str(error))
        case OutOfMemory():
            return MeshError(Reason.OUT_OF_MEMORY, str(error), retry_after_s="1")
        case ReaderTooSlow():
            return MeshError(Reason.CANCELLED, str(error))
        case HandedOver():
            return MeshError(Reason.NOT_READY, str(error), retry_after_s="1", cause=error.cause)
        case EngineStopped():
            return MeshError(Reason.NOT_READY, str(error), retry_after_s="1")
        case _:
            return MeshError(Reason.INTERNAL, str(error))
