"""A cascade as it is declared, and what can be decided in one. Knows nothing about how a rule is checked."""

import enum
from dataclasses import dataclass, field

from serin_mesh.prompt_classifier import PromptClassifier


class Rule(enum.StrEnum):
    """Why a cascade decided as it did. A closed set: it is also a metric's label."""

    NONE = "none"
    """No rule held."""
    HINT = "hint"
    """The caller said so."""
    PROMPT_MATCHES = "prompt_matches"
    PROMPT_LONGER = "prompt_longer"
    CLASSIFIER = "classifier"
    MEAN_LOGPROB = "mean_logprob"
    MIN_LOGPROB = "min_logprob"
    SCHEMA = "schema"
    UNAVAILABLE = "unavailable"
    """The first model could not take the request."""
    UNSUITED = "unsuited"
    """The first model cannot do what is asked: its context is shorter, its template shows no tools."""
    FAILED = "failed"
    """The first model's answer was lost on the way."""
    TOO_LARGE = "too_large"
    """The first model's answer was more than may be held back."""
    LATE = "late"
    """A rule held, and there was no time left to escalate."""
    THEN_FAILED = "then_failed"
    """A rule held, and the second model could not answer."""


class Outcome(enum.StrEnum):
    """Whose answer the caller gets: the first model's, or the second one's."""

    KEPT = "kept"
    ESCALATED = "escalated"


class Hint(enum.StrEnum):
    """What callers may say, by the header or metadata `serin-cascade`."""

    AUTO = "auto"
    FIRST = "first"
    THEN = "then"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a cascade decided for one request."""

    cascade: str
    outcome: Outcome
    rule: Rule

    def __str__(self) -> str:
        why = "" if self.rule is Rule.NONE else f":{self.rule.value}"
        return f"{self.cascade}:{self.outcome.value}{why}"


@dataclass(frozen=True, slots=True)
class EscalationRules:
    """When the second model answers; any rule is enough, an absent one never holds.

    Attributes:
        mean_logprob_below: of a choice's tokens, nats; ``min_logprob_below``: of some token.
        schema_fails: the answer is not what was asked for.
        prompt_patterns: regular expressions, checked; one is found in the prompt's last turn.
        prompt_longer_than: characters of the whole prompt; 0: however many.
        classifier, classifier_above: of the prompt's last turn; the probability, 0 to 1, above which it escalates.
        hint: callers may decide themselves.
    """

    mean_logprob_below: float | None = None
    min_logprob_below: float | None = None
    schema_fails: bool = False
    prompt_patterns: tuple[str, ...] = ()
    prompt_longer_than: int = 0
    classifier: PromptClassifier | None = None
    classifier_above: float = 0.5
    hint: bool = False

    @property
    def need_logprobs(self) -> bool:
        """Whether the first model must say how sure it was."""
        return self.mean_logprob_below is not None or self.min_logprob_below is not None


@dataclass(frozen=True, slots=True)
class Cascade:
    """A name behind which two models stand, by their own names."""

    name: str
    first: str
    then: str
    rules: EscalationRules = field(default_factory=EscalationRules)
