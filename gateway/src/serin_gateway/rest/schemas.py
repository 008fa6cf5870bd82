"""Bodies of requests as the OpenAI API defines them: names and types only.

Ranges are checked with the ask (they hold over gRPC too); what is neutral, unsupported or unknown is in
`parameters`. Knows nothing about what a parameter does.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from serin_gateway.conversation import MAX_TURNS

T = TypeVar("T")

Many = Annotated[list[T], Field(fail_fast=True)]
"""A list whose first wrong item is the last one looked at: a million of them must not cost a million errors."""
SeedInt = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Stop = str | Many[str] | None


class Part(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None


class CalledFunction(BaseModel):
    """What a tool call calls."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    arguments: str


class ToolCallBody(BaseModel):
    """A tool call of an earlier answer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class MessageBody(BaseModel):
    """One turn; `refusal`, `annotations` and `reasoning_content` come back in answers that clients send again."""

    model_config = ConfigDict(strict=True, extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Many[Part] | None = None
    name: str | None = None
    tool_calls: Many[ToolCallBody] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: Many[Any] | None = None
    audio: None = None
    function_call: None = None
    cache_control: Any = None


class FunctionBody(BaseModel):
    """What a tool is: a function with a JSON schema of its arguments."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(BaseModel):
    """A tool on offer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    function: FunctionBody
    cache_control: Any = None


class NamedFunction(BaseModel):
    """The function that is to be called."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str


class NamedToolChoice(BaseModel):
    """One tool is to be called."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    function: NamedFunction


ToolChoiceBody = Literal["none", "auto", "required"] | NamedToolChoice


class StreamOptions(BaseModel):
    """How a stream is written."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchema(BaseModel):
    """A schema that answers follow, and its name for people."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What answers are: text, any JSON object, or JSON of a schema."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(BaseModel):
    """What answers are, as vLLM's clients say it; one of these."""

    model_config = ConfigDict(strict=True, extra="forbid")
    json_value: dict[str, Any] | str | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Many[str] | None = None
    grammar: str | None = None


class SamplingBody(BaseModel):
    """What both kinds of completion have in common. Further members are kept for `parameters` to judge."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="A model's name or alias.")
    stream: bool | None = Field(None, description="Send answers as they are made.")
    stream_options: StreamOptions | None = Field(None, description="include_usage: a last chunk with the usage.")
    temperature: float | None = Field(None, description="0 to 2; 0 takes the most probable token. Default 1.")
    top_p: float | None = Field(None, description="Above 0, at most 1. Default 1.")
    top_k: int | None = Field(None, description="Number of most probable tokens to draw from; 0: all.")
    min_p: float | None = Field(None, description="0 to 1: least probability relative to the most probable token's.")
    frequency_penalty: float | None = Field(None, description="-2 to 2.")
    presence_penalty: float | None = Field(None, description="-2 to 2.")
    repetition_penalty: float | None = Field(None, description="0.01 to 2; 1 changes nothing.")
    logit_bias: dict[str, float] | None = Field(None, description="Token id to -100..100, at most 1,024.")
    seed: SeedInt | None = Field(None, description="Seed of all draws.")
    n: int | None = Field(None, description="Number of answers, 1 to 128.")
    stop: Stop = Field(None, description="Up to 4 strings that end an answer.")
    max_tokens: int | None = Field(
        None, description="Most tokens of an answer, reserved of limits until it ends. Default: the model's."
    )
    min_tokens: int | None = Field(None, description="Fewest tokens before an answer may stop.")
    ignore_eos: bool | None = Field(None, description="Go on past the model's end tokens.")
    stop_token_ids: Many[int] | None = Field(None, description="Up to 64 token ids that end an answer.")
    user: str | None = Field(None, description="Keeps a user's requests on one version, if nothing else does.")
    prompt_cache_key: str | None = Field(None, description="Keeps related requests on one version.")
    priority: int | None = Field(None, description="-100 to 100, higher first.")
    cache_salt: str | None = Field(None, description="Narrows what cached work may be shared; at most 128 bytes.")
    allow_cached_answer: bool | None = Field(None, description="A stored answer will do (temperature 0 only).")
    return_token_ids: bool | None = Field(None, description="Return the ids of prompt and answers too.")
    response_format: ResponseFormat | None = Field(
        None, description="text, json_object, or json_schema with a name, a schema and strict."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="One of json (a schema), json_object, regex, choice, grammar."
    )
    guided_json: dict[str, Any] | str | None = Field(None, description="A JSON schema that each answer follows.")
    guided_regex: str | None = Field(None, description="A regular expression that each answer matches as a whole.")
    guided_choice: Many[str] | None = Field(None, description="Each answer is one of these.")
    guided_grammar: str | None = Field(None, description="A grammar that each answer follows: Lark or GBNF.")


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[
        Many[MessageBody],
        Field(
            min_length=1,
            max_length=MAX_TURNS,
            description="The conversation so far, text only; arguments of a call that broke off "
            "may come back as they are.",
        ),
    ]
    tools: Many[ToolBody] | None = Field(
        None,
        description="Functions that may be called, at most 128; strict: their arguments follow the schema. Streams "
        "have arguments as they are written.",
    )
    tool_choice: ToolChoiceBody | None = Field(
        None,
        description="none shows no tools; required, and a function by name, make the answer calls that follow their "
        "schemas; allowed_tools is refused: send those tools alone.",
    )
    parallel_tool_calls: bool | None = Field(None, description="false: an answer ends behind its first call.")
    reasoning_effort: str | None = Field(
        None, description="none, minimal, low, medium, high, xhigh or max; refused where a model has no switch for it."
    )
    max_completion_tokens: int | None = Field(
        None, description="Most tokens of an answer, reserved of limits until it ends. Default: the model's."
    )
    logprobs: bool | None = Field(None, description="Report log-probabilities.")
    top_logprobs: int | None = Field(
        None, description="Alternatives at each position, 0 to 20; more than 0 needs logprobs."
    )


class CompletionBody(SamplingBody):
    """`POST /v1/completions`."""

    prompt: str | Many[str] | Many[int] | Many[Many[int]] = Field(
        description="A text, up to 128 of them, or the same as token ids."
    )
    max_tokens: int | None = Field(
        None,
        description="Most tokens of an answer, reserved of limits until it ends. Default "
        "16; with echo also 0: the prompt alone, scored.",
    )
    echo: bool | None = Field(
        None, description="Return the prompt before each answer; with logprobs, its log-probabilities too."
    )
    logprobs: int | None = Field(
        None, description="Alternatives at each position, 0 to 20; the token that was taken is always listed too."
    )


class EmbeddingsBody(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="Name or alias of a model that computes embeddings.")
    input: str | Many[str] | Many[int] | Many[Many[int]] = Field(
        description="A text, up to 2,048 of them, or the same as token ids, which are taken as they are."
    )
    dimensions: int | None = Field(
        None, description="Length of the vectors, at most the model's own, which is the default; shorter ones are cut."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float: numbers (default); base64: little-endian 32-bit floats."
    )
    user: str | None = Field(None, description="Keeps a user's requests on one version, if nothing else does.")


class TokenizeBody(BaseModel):
    """`POST /tokenize`: a text, or a conversation."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="A model's name or alias.")
    prompt: str | None = Field(None, description="A text. Either this or messages.")
    messages: Annotated[
        Many[MessageBody] | None,
        Field(min_length=1, max_length=MAX_TURNS, description="A conversation, which the model's template writes out."),
    ] = None
    tools: Many[ToolBody] | None = Field(None, description="With messages: functions that may be called, at most 128.")
    tool_choice: ToolChoiceBody | None = Field(None, description="With messages: as for chat completions.")
    reasoning_effort: str | None = Field(None, description="With messages: as for chat completions.")
    add_generation_prompt: bool | None = Field(
        None,
        description="With messages: whether the prompt ends with what the template writes before an answer. "
        "Default true, and false with continue_final_message.",
    )
    continue_final_message: bool | None = Field(
        None, description="With messages: the last one, an assistant's, stays open for an answer to go on in."
    )
    add_special_tokens: bool | None = Field(
        None,
        description="With prompt: add the special tokens that the tokenizer always adds. Default true; "
        "with messages only false, for a template writes its own.",
    )
    return_token_strs: bool | None = Field(
        None, description="Return the text of each token by itself too; bytes that are no UTF-8 become U+FFFD."
    )


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model: str = Field(description="A model's name or alias.")
    tokens: Many[int] = Field(
        description="Token ids of the model's vocabulary, no more than its context; special ones are written out."
    )


class FeedbackBody(BaseModel):
    """`POST /v1/feedback`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    request_id: str = Field(description="x-request-id or id of the answer; of a request of the same tenant.")
    score: Literal["up", "down"] | float | int = Field(description="From 0 (useless) to 1 (as wanted), or up or down.")
