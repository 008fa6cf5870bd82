"""What can go wrong in the cache, as one tree.

Knows nothing about gRPC: the service translates these into the mesh's reasons.

    CacheError
    ├── StoreDown        the answer store did not answer
    ├── NotDeterministic an answer that another run might not give
    ├── AnswerRefused    an answer that cannot be kept
    └── WorkersUnknown   nobody has said yet which workers there are
"""


class CacheError(Exception):
    """Anything this room raises on purpose."""


class StoreDown(CacheError):
    """The answer store did not answer, or not as it should."""


class NotDeterministic(CacheError):
    """The same request may be answered differently the next time, so its answer says nothing about the next."""


class AnswerRefused(CacheError):
    """An answer that cannot be kept.

    Attributes:
        parameter: name of the offending field, as the contract spells it.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class WorkersUnknown(CacheError):
    """Nobody has said yet which workers there are."""
