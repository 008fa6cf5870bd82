"""What can go wrong between text and ids, as one tree.

Knows nothing about gRPC: the service translates these into the mesh's reasons.

    TokenizerError
    ├── FolderRefused            the model folder cannot be served
    ├── InputRefused             the caller's input is outside what is accepted
    │   ├── PromptTooLong        more ids than the caller allows
    │   └── NotShown             the template has no place for it
    ├── TemplateError            the chat template did not render
    │   ├── NoTemplate           the model folder has none
    │   ├── TemplateRejected     the template refuses the conversation
    │   ├── TemplateArgumentUnknown
    │   └── TemplateLimit        too slow, too much output, too much memory
    ├── GrammarError             the caller's grammar cannot be used
    │   ├── GrammarRejected      damaged, not enforceable, or it allows nothing
    │   └── GrammarLimit         too large, too slow to check or to follow, or only of texts that are too long
    ├── GrammarsUnsupported      this tokenizer's ids have no bytes of their own
    ├── GrammarBusy              too many grammars wait to be checked
    ├── RenderBusy               too many conversations wait to be rendered
    └── EncodeBusy               too much text waits to be encoded
"""


class TokenizerError(Exception):
    """Anything this room raises on purpose.

    Attributes:
        parameter: name of the offending field, as the contract spells it; empty: none, or whatever held the input.
    """

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class FolderRefused(TokenizerError):
    """The model folder lacks something, or something in it is damaged; the message names the file."""


class InputRefused(TokenizerError):
    """The caller's input is outside what is accepted."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message, parameter)


class PromptTooLong(InputRefused):
    """More ids come out than the caller allows; ``at_least`` so many, where that was seen before encoding."""

    def __init__(self, num_tokens: int, max_tokens: int, parameter: str, *, at_least: bool = False) -> None:
        least = "at least " if at_least else ""
        super().__init__(f"the prompt has {least}{num_tokens} tokens; at most {max_tokens} are accepted", parameter)
        self.at_least = at_least
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens


class NotShown(InputRefused):
    """What the caller wants is fine, but this model's chat template has no place for it."""


class TemplateError(TokenizerError):
    """The chat template did not render."""


class NoTemplate(TemplateError):
    """The model folder has no chat template."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "messages")


class TemplateRejected(TemplateError):
    """The template refuses the conversation, or fails on it."""

    def __init__(self, message: str, parameter: str = "messages") -> None:
        super().__init__(message, parameter)


class TemplateArgumentUnknown(TemplateError):
    """A template argument that the template does not read; it is the parameter."""


class TemplateLimit(TemplateError):
    """Rendering took too long, wrote too much or needed too much memory."""


class GrammarError(TokenizerError):
    """The caller's grammar cannot be used."""


class GrammarRejected(GrammarError):
    """A grammar that is damaged, asks for what cannot be enforced, or allows nothing at all."""


class GrammarLimit(GrammarError):
    """A grammar that is too large, takes too long to check or to follow, or allows only texts that are too long."""


class GrammarsUnsupported(TokenizerError):
    """The tokenizer's ids have no bytes of their own, so no grammar can be followed with them."""


class GrammarBusy(TokenizerError):
    """Too many grammars wait to be checked."""


class RenderBusy(TokenizerError):
    """Too many conversations wait to be rendered."""


class EncodeBusy(TokenizerError):
    """Too much text waits to be encoded."""
