"""Bodies of requests as the Anthropic API defines them: names and types only.

Ranges that hold for every door are checked with the ask. What SDKs have and nothing here means, they may send as null.
Knows nothing about what a parameter does.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serin_gateway.conversation import MAX_TURNS
from serin_gateway.rest.schemas import Many


class TextBlock(BaseModel):
    """Text."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None
    citations: None = None
    parsed_output: None = None


class CallerBody(BaseModel):
    """Who used a tool: the model itself, as all tools here are."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["direct"]


class ToolUseBlock(BaseModel):
    """A tool that an earlier answer used."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: dict[str, Any] | None = None
    caller: CallerBody | None = None
    toolset_name: None = None


class ToolResultBlock(BaseModel):
    """What a tool gave. Templates have no place for `is_error`: true is ignored and named as such."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | Many[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: dict[str, Any] | None = None
    toolset_name: None = None


class ThinkingBlock(BaseModel):
    """What an earlier answer reasoned; its signature is this mesh's own, and empty."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


Block = Annotated[TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")]


class ToolBody(BaseModel):
    """A tool on offer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: Many[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    input_examples: None = None
    strict: bool | None = None


class ToolChoiceBody(BaseModel):
    """Whether tools are used."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(BaseModel):
    """Whether the model reasons before it answers."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1024)] | None = None
    display: Literal["summarized"] | None = None
    block_binding: None = None


class TurnBody(BaseModel):
    """One turn. The last one may be the assistant's: the answer goes on from it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    role: Literal["user", "assistant"]
    content: str | Many[Block]


class MetadataBody(BaseModel):
    """About the request."""

    model_config = ConfigDict(strict=True, extra="forbid")
    user_id: str | None = None


class PromptBody(BaseModel):
    """What is asked, of whom. Further members are kept for `parameters` to judge."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="A model's name or alias.")
    messages: Annotated[
        Many[TurnBody],
        Field(
            min_length=1,
            max_length=MAX_TURNS,
            description="The conversation so far, text only; the answer goes on from a last assistant's turn. A "
            "result's is_error is ignored and named as such: its text says that the tool failed.",
        ),
    ]
    system: str | Many[TextBlock] | None = Field(None, description="What holds for the whole conversation.")
    tools: Many[ToolBody] | None = Field(
        None,
        description="Tools that may be used, at most 128; strict: their input follows the schema. Streams have their "
        "input as it is written.",
    )
    tool_choice: ToolChoiceBody | None = Field(
        None,
        description="none shows no tools; any, and tool with a name, make the answer uses that follow their schemas.",
    )
    thinking: ThinkingBody | None = Field(
        None, description="Reasoning on, off, or as the model does; budget_tokens is ignored and named as such."
    )


class MessagesBody(PromptBody):
    """`POST /v1/messages`."""

    max_tokens: int = Field(description="Most tokens of the answer, at least 1.")
    temperature: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="0 to 1; 0 takes the most probable token. Default 1."
    )
    top_p: float | None = Field(None, description="Above 0, at most 1. Default 1.")
    top_k: int | None = Field(None, description="Number of most probable tokens to draw from; 0: all.")
    stop_sequences: Many[str] | None = Field(None, description="Up to 4 strings that end the answer.")
    stream: bool | None = Field(None, description="Send the answer as it is made.")
    metadata: MetadataBody | None = Field(None, description="user_id keeps a user's requests on one version.")


class CountTokensBody(PromptBody):
    """`POST /v1/messages/count_tokens`."""
