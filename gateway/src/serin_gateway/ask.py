"""What a client asks for, whichever door it came through, and the ranges that hold for both.

Knows nothing about HTTP, gRPC or tokenizers: text is text, ids are numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from serin_mesh.errors import MeshError, Reason

from serin_gateway.conversation import Conversation
from serin_gateway.grammar import MAX_GRAMMAR_BYTES, Grammar

MAX_CHOICES = 128
MAX_STOP_STRINGS = 4
MAX_STOP_STRING_BYTES = 1024
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024
MAX_PROMPTS = 128
MAX_SALT_BYTES = 128
LEAST_REPETITION_PENALTY = 0.01 * (1 - 2**-24)
"""0.01, as 32 bits may hold it, in which it comes by gRPC."""
MAX_SESSION_BYTES = 256


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt as ids of the model's vocabulary."""

    token_ids: Sequence[int]


Input = Conversation | TokenPrompt | str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; the names, units and defaults are those of ``serin.generation.v1.SamplingParameters``."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    top_logprobs: int | None = None
    choice_count: int = 1

    @property
    def is_greedy(self) -> bool:
        """True when the answer is the same each time by construction."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Turns:
    """The places that a request takes at workers: ``num_places`` at once, ``count`` times one after the other."""

    num_places: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what to answer, how, and for whom it may be shared.

    Attributes:
        inputs: one conversation, or 1 to 128 prompts; each is answered ``sampling.choice_count`` times.
        session_keys: what may make the caller's requests stay on one lane, best first; empty ones are passed over.
        echo: the prompt's text comes before each answer. Only then ``sampling.max_tokens`` may be 0: the prompt alone.
        want_token_ids: the ids go with the text.
        grammar: what each answer must be; None: anything.
        allow_cached_answer: a stored answer will do (deterministic requests only).
        is_streamed: the caller sees it grow, so calls of tools are told before they are whole.
        named: from a name that is used behind the doors (``choice_count``, ``inputs[1]``, ``messages[0].content``) to
            what its caller wrote there (``n`` over REST), for errors.
    """

    model: str
    inputs: Sequence[Input]
    sampling: Sampling = field(default_factory=Sampling)
    stop_strings: Sequence[str] = ()
    session_keys: Sequence[str] = ()
    priority: int = 0
    cache_salt: str = ""
    allow_cached_answer: bool = False
    echo: bool = False
    want_token_ids: bool = False
    grammar: Grammar | None = None
    is_streamed: bool = False
    named: Callable[[str], str] = field(default=str, compare=False, repr=False)

    @property
    def choice_count(self) -> int:
        """Answers in all."""
        return len(self.inputs) * self.sampling.choice_count

    @property
    def is_prompt_only(self) -> bool:
        """Whether nothing is to be made: the prompt is given back, with its scores where these are wanted."""
        return self.sampling.max_tokens == 0

    @property
    def may_change_model(self) -> bool:
        """Whether the answer of another model will do, where the one that was asked for cannot."""
        return True

    def turns(self, worker_places: int) -> "Turns":
        """What it asks of the workers, of which the smallest makes ``worker_places`` answers at once (0: unknown)."""
        return Turns(self.choice_count)


def token_bound(one: Input) -> int:
    """Most tokens that a prompt can have: no token is shorter than a byte."""
    if isinstance(one, str):
        return len(one.encode()) + 1
    if isinstance(one, TokenPrompt):
        return len(one.token_ids)
    return one.token_bound


def place_of(one: Input, at: int) -> str:
    """Where an ask's ``at``-th input is, by the name that is used behind the doors."""
    return "messages" if isinstance(one, Conversation) else f"inputs[{at}]"


def check(ask: Ask) -> Ask:
    """The ask, if every value is in range.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter as its caller names it, its value and what is accepted;
            GRAMMAR_LIMIT.
    """
    for name, ok, value, accepted in _findings(ask):
        if not ok:
            raise refuse(ask.named(name), f"{value!r:.80} is not accepted; accepted: {accepted}")
    for one in ask.inputs:
        fault = one.fault() if isinstance(one, Conversation) else None
        if fault is not None:
            where, why = fault
            raise refuse(ask.named(where), why)
    if ask.grammar is not None and len(ask.grammar.text.encode()) > MAX_GRAMMAR_BYTES:
        longest = f"longer than {MAX_GRAMMAR_BYTES} bytes"
        raise refuse(ask.grammar.parameter, f"the grammar is {longest}", Reason.GRAMMAR_LIMIT)
    if ask.grammar is not None and any(
        isinstance(one, Conversation) and one.tool_choice.begins_call for one in ask.inputs
    ):
        raise refuse(ask.grammar.parameter, "an answer cannot be a required call and of this form; leave one out")
    return ask


def refuse(parameter: str, why: str, reason: Reason = Reason.PARAMETER_INVALID) -> MeshError:
    """The error for a bad parameter: its name in the sentence and in the metadata."""
    return MeshError(reason, f"{parameter}: {why}", parameter=parameter)


@contextmanager
def named_as_in(ask: Ask) -> Iterator[None]:
    """A block whose errors name parameters as they are named behind the doors: they leave it as its caller does."""
    try:
        yield
    except MeshError as error:
        given = error.metadata.get("parameter", "")
        name = ask.named(given)
        if name == given:
            raise
        why = name + error.message.removeprefix(given) if error.message.startswith(given) else error.message
        raise blaming(name, error, why) from error


def blaming(name: str, error: MeshError, why: str = "") -> MeshError:
    """The same error as one of another parameter; ``why``: its message, if it does not only get the name in front."""
    return MeshError(error.reason, why or f"{name}: {error.message}", **{**error.metadata, "parameter": name})


class _Counted(NamedTuple):
    """What is told of a value that would be too long to show; not in quotes, as the caller's own text is."""

    number: int
    what: str

    def __repr__(self) -> str:
        return f"{self.number} {self.what}"


def _findings(ask: Ask) -> Iterator[tuple[str, bool, object, str]]:
    # One after the other: what counts entries comes before what looks at each of them.
    s = ask.sampling
    longest = s.max_tokens if s.max_tokens is not None else 2**31
    fewest = 0 if ask.echo else 1
    stops = ask.stop_strings
    yield ("model", 0 < len(ask.model) <= 256, ask.model, "a model's name")
    yield ("inputs", 1 <= len(ask.inputs) <= MAX_PROMPTS, _Counted(len(ask.inputs), "prompts"), f"1 to {MAX_PROMPTS}")
    yield ("temperature", 0 <= s.temperature <= 2, s.temperature, "0 to 2")
    yield ("top_p", 0 < s.top_p <= 1, s.top_p, "above 0, at most 1")
    yield ("top_k", 0 <= s.top_k < 2**31, s.top_k, "0 (all) to 2147483647")
    yield ("min_p", 0 <= s.min_p <= 1, s.min_p, "0 to 1")
    yield ("frequency_penalty", -2 <= s.frequency_penalty <= 2, s.frequency_penalty, "-2 to 2")
    yield ("presence_penalty", -2 <= s.presence_penalty <= 2, s.presence_penalty, "-2 to 2")
    yield (
        "repetition_penalty",
        LEAST_REPETITION_PENALTY <= s.repetition_penalty <= 2,
        s.repetition_penalty,
        "0.01 to 2",
    )
    yield (
        "logit_bias",
        len(s.logit_bias) <= MAX_LOGIT_BIASES,
        _Counted(len(s.logit_bias), "entries"),
        f"at most {MAX_LOGIT_BIASES}",
    )
    yield ("logit_bias", all(0 <= i < 2**32 for i in s.logit_bias), list(s.logit_bias), "token ids as names")
    yield ("logit_bias", all(-100 <= b <= 100 for b in s.logit_bias.values()), dict(s.logit_bias), "values -100 to 100")
    yield ("seed", s.seed is None or 0 <= s.seed < 2**64, s.seed, "an integer of 64 bits")
    yield (
        "max_tokens",
        s.max_tokens is None or fewest <= s.max_tokens < 2**31,
        s.max_tokens,
        f"{fewest} to 2147483647",
    )
    yield ("min_tokens", 0 <= s.min_tokens <= longest, s.min_tokens, "0 to max_tokens")
    yield (
        "stop_token_ids",
        len(s.stop_token_ids) <= MAX_STOP_TOKEN_IDS,
        _Counted(len(s.stop_token_ids), "ids"),
        f"at most {MAX_STOP_TOKEN_IDS}",
    )
    yield ("stop_token_ids", all(0 <= i < 2**32 for i in s.stop_token_ids), list(s.stop_token_ids), "token ids")
    yield ("top_logprobs", s.top_logprobs is None or 0 <= s.top_logprobs <= 20, s.top_logprobs, "0 to 20")
    yield ("choice_count", 1 <= s.choice_count <= MAX_CHOICES, s.choice_count, f"1 to {MAX_CHOICES}")
    yield (
        "choice_count",
        ask.choice_count <= MAX_CHOICES,
        _Counted(ask.choice_count, "answers"),
        f"at most {MAX_CHOICES} in all",
    )
    yield (
        "stop_strings",
        len(stops) <= MAX_STOP_STRINGS,
        _Counted(len(stops), "strings"),
        f"at most {MAX_STOP_STRINGS}",
    )
    yield ("stop_strings", all(stops), "", "strings that are not empty")
    longest_stop = max((len(stop.encode()) for stop in stops), default=0)
    yield (
        "stop_strings",
        longest_stop <= MAX_STOP_STRING_BYTES,
        _Counted(longest_stop, "bytes"),
        f"strings of at most {MAX_STOP_STRING_BYTES} bytes",
    )
    yield ("priority", -100 <= ask.priority <= 100, ask.priority, "-100 to 100")
    yield (
        "allow_cached_answer",
        s.is_greedy or not ask.allow_cached_answer,
        True,
        "with temperature 0 only; other answers differ each time, and none is kept",
    )
    num_salt_bytes = len(ask.cache_salt.encode())
    yield (
        "cache_salt",
        num_salt_bytes <= MAX_SALT_BYTES,
        _Counted(num_salt_bytes, "bytes"),
        f"at most {MAX_SALT_BYTES} bytes",
    )
