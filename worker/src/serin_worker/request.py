"""What can be asked of the engine: generations and scores, checked when they are made.

Knows nothing about text, protobuf, blocks or tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from serin_worker.errors import RequestRefused
from serin_worker.grammars.constraint import Constraint

MAX_ALTERNATIVES = 20
MAX_CHOICES = 128
LEAST_REPETITION_PENALTY = 0.01
"""Logits are divided by it: far less would make infinities of a sound model's logits."""
_LEAST_REPETITION_PENALTY = LEAST_REPETITION_PENALTY * (1 - 2**-24)
"""The same as 32 bits may hold it, in which it comes."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the model's logits.

    The order is: logit_bias, min_tokens' mask, repetition, frequency and presence penalties, the grammar's mask,
    temperature, min_p, top_k, top_p, then one draw that is a pure function of (seed, choice, position).
    """

    temperature: float = 1.0
    """Below 1e-5 takes the most likely token; otherwise logits are divided by it, [0, 2]."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens whose probability reaches this, (0, 1]."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest one's probability, [0, 1]."""
    frequency_penalty: float = 0.0
    """Subtracted once per earlier occurrence in the output, [-2, 2]."""
    presence_penalty: float = 0.0
    """Subtracted once if the token occurs in the output, [-2, 2]."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens of prompt and output, [0.01, 2]."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these ids, [-100, 100]."""
    seed: int = 0
    """Names the stream of draws; 64 bits."""
    num_logprobs: int | None = None
    """None: no log-probabilities. Otherwise that of each token and of so many likeliest alternatives, 0 to 20, of the
    model's own distribution before anything above."""

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            RequestRefused: names the parameter and what is accepted.
        """
        _check("temperature", self.temperature, 0 <= self.temperature <= 2, "0 to 2")
        _check("top_k", self.top_k, self.top_k >= 0, "0 (all) or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "0 to 1")
        _check("frequency_penalty", self.frequency_penalty, -2 <= self.frequency_penalty <= 2, "from -2 to 2")
        _check("presence_penalty", self.presence_penalty, -2 <= self.presence_penalty <= 2, "from -2 to 2")
        is_fit = _LEAST_REPETITION_PENALTY <= self.repetition_penalty <= 2
        _check("repetition_penalty", self.repetition_penalty, is_fit, f"{LEAST_REPETITION_PENALTY} to 2")
        for token_id, bias in self.logit_bias.items():
            _check(f"logit_bias[{token_id}]", bias, -100 <= bias <= 100, "from -100 to 100")
        if self.num_logprobs is not None:
            _check("top_logprobs", self.num_logprobs, 0 <= self.num_logprobs <= MAX_ALTERNATIVES, "0 to 20")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken without a draw."""
        return self.temperature < 1e-5

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0 or self.repetition_penalty != 1

    @property
    def has_filters(self) -> bool:
        """Whether some tokens are dropped before the draw."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, slots=True)
class Stopping:
    """When a choice ends. Counts include prior output."""

    max_tokens: int | None = None
    """Most tokens a choice may have; None: up to the context's end."""
    min_tokens: int = 0
    """No end or stop id is drawn before so many tokens."""
    stop_ids: frozenset[int] = frozenset()
    """Ids that end a choice, beside the model's own end ids."""
    ignore_eos: bool = False
    """Whether the model's own end ids do not end a choice."""

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            RequestRefused: names the parameter and what is accepted.
        """
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more")
        _check("min_tokens", self.min_tokens, self.min_tokens >= 0, "0 or more")
        if self.max_tokens is not None:
            _check("min_tokens", self.min_tokens, self.min_tokens <= self.max_tokens, "at most max_tokens")


@dataclass(frozen=True, slots=True)
class PriorOutput:
    """Tokens of a choice that another attempt already produced; a finished choice is not run again."""

    choice_index: int
    token_ids: Sequence[int] = ()
    is_finished: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Continue a prompt, once or as several choices."""

    request_id: str
    prompt_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    num_choices: int = 1
    prior: Sequence[PriorOutput] = ()
    grammar: str = ""
    """What each choice must follow, in the grammar library's own language; empty: anything."""
    constraints: Mapping[int, Constraint] = field(default_factory=dict)
    """The grammar opened for each choice by index, prior output followed; empty without a grammar."""
    namespace: bytes = b""
    """Root of the block keys this request may share; empty: it shares nothing."""
    purge_key: bytes = b""
    """Name under which its blocks can be purged; empty: the namespace."""
    priority: int = 0
    """Higher runs first, and is preempted last."""
    tenant: str = ""
    """Opaque key that fairness counts tokens by."""
    tenant_weight: float = 1.0
    """A tenant of weight 2 gets twice the tokens of one of weight 1 while both wait."""

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong without the model.

        Raises:
            RequestRefused: names the parameter and what is accepted.
        """
        _check("prompt", len(self.prompt_ids), len(self.prompt_ids) > 0, "at least one token")
        _check("choice_count", self.num_choices, 1 <= self.num_choices <= MAX_CHOICES, f"1 to {MAX_CHOICES}")
        _check("tenant_weight", self.tenant_weight, self.tenant_weight > 0, "above 0")
        seen = [prior.choice_index for prior in self.prior]
        for index in seen:
            _check("prior.choice_index", index, 0 <= index < self.num_choices, f"0 to {self.num_choices - 1}")
        _check("prior.choice_index", seen, len(set(seen)) == len(seen), "each choice once")


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Log-probabilities of given tokens after a prompt, by one prefill."""

    request_id: str
    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    num_alternatives: int = 0
    """Likeliest tokens to report at each position, 0 to 20."""
    namespace: bytes = b""
    purge_key: bytes = b""
    priority: int = 0
    tenant: str = ""
    tenant_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong without the model.

        Raises:
            RequestRefused: names the parameter and what is accepted.
        """
        _check("prompt", len(self.prompt_ids), len(self.prompt_ids) > 0, "at least one token")
        _check("target", len(self.target_ids), len(self.target_ids) > 0, "at least one token")
        _check("top_logprobs", self.num_alternatives, 0 <= self.num_alternatives <= MAX_ALTERNATIVES, "0 to 20")
        _check("tenant_weight", self.tenant_weight, self.tenant_weight > 0, "above 0")


def _check(parameter: str, value: object, is_accepted: bool, accepted: str) -> None:
    if isinstance(value, float) and not isfinite(value):
        is_accepted = False
    if not is_accepted:
        raise RequestRefused(parameter, f"{parameter} is {value!r}; accepted: {accepted}")
