"""Bodies of the Responses API: names and types only.

Ranges that hold for every door are checked with the ask; what is neutral is in `parameters`. Knows nothing about what a
parameter does.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from serin_gateway.rest.schemas import Many, SeedInt

ItemStatus = Literal["in_progress", "completed", "incomplete"] | None


class DirectCaller(BaseModel):
    """Who called a function: the model itself."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["direct"]


class InputText(BaseModel):
    """Text of whoever asks."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: Any = None


class OutputText(BaseModel):
    """Text of an earlier answer; annotations and log-probabilities come back in answers that clients send again."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["output_text"]
    text: str
    annotations: Many[Any] | None = None
    logprobs: Many[Any] | None = None


Content = Annotated[InputText | OutputText, Field(discriminator="type")]


class MessageItem(BaseModel):
    """A message."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Many[Content]
    id: str | None = None
    status: ItemStatus = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCallItem(BaseModel):
    """A call that an earlier answer made."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: ItemStatus = None
    caller: DirectCaller | None = None
    namespace: None = None
    is_async: Literal[False] | None = Field(None, alias="async")


class FunctionCallOutputItem(BaseModel):
    """What a called function gave."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function_call_output"]
    call_id: str
    output: str | Many[InputText]
    name: str | None = None
    id: str | None = None
    status: ItemStatus = None
    caller: DirectCaller | None = None
    namespace: None = None


class ReasoningText(BaseModel):
    """Reasoning."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["reasoning_text"]
    text: str


class SummaryText(BaseModel):
    """A summary of reasoning, as other servers make them."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["summary_text"]
    text: str


class ReasoningItem(BaseModel):
    """What an earlier answer reasoned. Nothing here encrypts it, so nothing here could read it encrypted."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["reasoning"]
    summary: Many[SummaryText] | None = None
    content: Many[ReasoningText] | None = None
    id: str | None = None
    status: ItemStatus = None
    encrypted_content: None = None


def _kind(item: Any) -> str:
    """The type of an item; messages need not name theirs."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None or not isinstance(kind, str) else kind


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class FunctionToolBody(BaseModel):
    """A function on offer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    allowed_callers: Many[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    is_async: Literal[False] | None = Field(None, alias="async")
    output_schema: None = None


class ToolName(BaseModel):
    """A function by its name."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    name: str


class AllowedTools(BaseModel):
    """Some of the tools; the others are not shown to the model."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[Many[ToolName], Field(min_length=1)]


ToolChoiceBody = (
    Literal["none", "auto", "required"] | Annotated[ToolName | AllowedTools, Field(discriminator="type")] | None
)


class PlainFormat(BaseModel):
    """Text, or any JSON object."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text", "json_object"]


class SchemaFormat(BaseModel):
    """JSON of a schema."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["json_schema"]
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextBody(BaseModel):
    """What text answers are."""

    model_config = ConfigDict(strict=True, extra="forbid")
    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningBody(BaseModel):
    """How much the model reasons."""

    model_config = ConfigDict(strict=True, extra="forbid")
    effort: str | None = None
    summary: None = None
    generate_summary: None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class ResponseStreamOptions(BaseModel):
    """How a stream is written."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_obfuscation: Literal[False] | None = None


Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""All but the first name what no answer here has: the text of reasoning is in its item as it is."""
LOGPROBS: Includable = "message.output_text.logprobs"

MetadataValue = Annotated[str, Field(max_length=512)]


class ResponseBody(BaseModel):
    """`POST /v1/responses`. Further members are kept for `parameters` to judge."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="A model's name or alias.")
    input: str | Many[Item] = Field(
        description="A text, or items: message, function_call, function_call_output, reasoning."
    )
    instructions: str | None = Field(
        None, description="A system message before everything else; the next response does not inherit it."
    )
    previous_response_id: str | None = Field(
        None, description="A kept response of the same project, whose conversation goes on."
    )
    store: bool | None = Field(
        None, description="false: nothing is kept. Default: true; the answer's own `store` says whether it is kept."
    )
    stream: bool | None = Field(None, description="Send events as they happen.")
    stream_options: ResponseStreamOptions | None = Field(None, description="include_obfuscation: false only.")
    include: Many[Includable] | None = Field(
        None, description="message.output_text.logprobs; the others name what no answer here has."
    )
    top_logprobs: int | None = Field(
        None, description="Alternatives at each position, 0 to 20; more than 0 needs include to name the logprobs."
    )
    max_output_tokens: int | None = Field(
        None,
        description="Most tokens of the answer, reasoning included; reserved of limits until it ends. "
        "Default: the model's.",
    )
    temperature: float | None = Field(None, description="0 to 2; 0 takes the most probable token. Default 1.")
    top_p: float | None = Field(None, description="Above 0, at most 1. Default 1.")
    tools: Many[FunctionToolBody] | None = Field(
        None,
        description="Functions that may be called, at most 128; strict (default: false): their arguments follow the "
        "schema. Streams have arguments as they are written. Built-in tools are refused.",
    )
    tool_choice: ToolChoiceBody = Field(
        None,
        description="none shows no tools; required, and a function by name, make the answer calls that follow their "
        "schemas; allowed_tools shows those alone.",
    )
    parallel_tool_calls: bool | None = Field(None, description="false: an answer ends behind its first call.")
    text: TextBody | None = Field(
        None,
        description="format: text, json_object, or json_schema with a name, a schema and strict; verbosity: medium.",
    )
    reasoning: ReasoningBody | None = Field(
        None,
        description="effort: none, minimal, low, medium, high, xhigh or max, refused where a model has no switch for "
        "it; context: auto; mode: standard; no summaries.",
    )
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], MetadataValue], Field(max_length=16)] | None = Field(
        None, description="Up to 16 texts by name, kept with the response."
    )
    user: str | None = Field(None, description="Keeps a user's requests on one version, if nothing else does.")
    prompt_cache_key: str | None = Field(None, description="Keeps related requests on one version.")
    safety_identifier: str | None = Field(None, description="Comes back in the response; nothing here looks at it.")
    max_tool_calls: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Calls of built-in tools, of which there are none."
    )
    seed: SeedInt | None = Field(None, description="Seed of all draws.")
    top_k: int | None = Field(None, description="Number of most probable tokens to draw from; 0: all.")
    min_p: float | None = Field(None, description="0 to 1: least probability relative to the most probable token's.")
    priority: int | None = Field(None, description="-100 to 100, higher first.")
    cache_salt: str | None = Field(None, description="Narrows what cached work may be shared; at most 128 bytes.")
