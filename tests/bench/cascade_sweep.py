"""What each rule would do with answers that both models have given: accuracy against cost, threshold by threshold.

The rules are the gateway's own. Knows nothing about how answers came about.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cascade_asking import Answer
from serin_gateway.ask import Ask
from serin_gateway.cascades.answer_rules import HeldChoice, answer_rule
from serin_gateway.cascades.cascade import EscalationRules, Rule
from serin_gateway.cascades.prompt_rules import prompt_rule
from serin_mesh.prompt_classifier import PromptClassifier

PATTERNS = (r"\d+ *[-+*x] *\d+", r"(?i)\b(larger|smaller|count|numbers?)\b")
"""What somebody who knows that the small model cannot calculate would write down."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models' answers to one question, and what each costs."""

    first: Answer
    then: Answer
    first_cost: float
    then_cost: float


@dataclass(frozen=True, slots=True)
class Point:
    """One rule at one threshold: shares of the second model's accuracy and cost, and of what was escalated."""

    rule: str
    threshold: float | None
    accuracy: float
    cost: float
    escalated: float

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Sweep:
    """Rules over the same questions.

    Args:
        pairs: both models' answers.
        classifier: the trained one.
    """

    def __init__(self, pairs: Sequence[Pair], classifier: PromptClassifier) -> None:
        self.pairs = pairs
        self._classifier = classifier
        self._whole_cost = sum(pair.then_cost for pair in pairs)

    @property
    def first_accuracy(self) -> float:
        """Of the first model, alone."""
        return sum(pair.first.is_right for pair in self.pairs) / len(self.pairs)

    @property
    def then_accuracy(self) -> float:
        """Of the second model, alone."""
        return sum(pair.then.is_right for pair in self.pairs) / len(self.pairs)

    def point(self, name: str, threshold: float | None, rules: EscalationRules) -> Point:
        """What these rules do."""
        num_right, cost, num_escalated = 0, 0.0, 0
        for pair in self.pairs:
            before = prompt_rule(rules, Ask("", [pair.first.text]))
            after = None if before else _after(rules, pair.first)
            cost += 0.0 if before else pair.first_cost
            if before or after:
                num_escalated += 1
                num_right += pair.then.is_right
                cost += pair.then_cost
            else:
                num_right += pair.first.is_right
        share = len(self.pairs) * self.then_accuracy
        return Point(name, threshold, num_right / share, cost / self._whole_cost, num_escalated / len(self.pairs))

    def oracle(self) -> Point:
        """Escalate exactly what the first model gets wrong: no rule over its answers can do better."""
        wrong = [pair for pair in self.pairs if not pair.first.is_right]
        cost = sum(pair.first_cost for pair in self.pairs) + sum(pair.then_cost for pair in wrong)
        right = len(self.pairs) - sum(not pair.then.is_right for pair in wrong)
        share = len(self.pairs) * self.then_accuracy
        return Point("oracle", None, right / share, cost / self._whole_cost, len(wrong) / len(self.pairs))

    def by_chance(self, share: float) -> Point:
        """Escalate a share of all questions, whichever they are: what a rule has to beat."""
        accuracy = (1 - share) * self.first_accuracy + share * self.then_accuracy
        cost = sum(pair.first_cost for pair in self.pairs) + share * self._whole_cost
        return Point("by chance", share, accuracy / self.then_accuracy, cost / self._whole_cost, share)

    def curves(self) -> Mapping[str, Sequence[Point]]:
        """Every rule over its thresholds."""
        return {name: [self.point(name, at, rules) for at, rules in self._settings(name)] for name in RULES}

    def _settings(self, name: str) -> Iterator[tuple[float | None, EscalationRules]]:
        for at in RULES[name][1]:
            yield at, rules_of(name, at, self._classifier)


def rules_of(name: str, threshold: float | None, classifier: PromptClassifier) -> EscalationRules:
    """The declared rules of a name and a threshold."""
    rules = RULES[name][0](threshold)
    return replace(rules, classifier=classifier) if "classifier" in name else rules


def best(points: Sequence[Point], accuracy: float) -> Point | None:
    """The cheapest that reaches an accuracy; None: none does."""
    good = [point for point in points if point.accuracy >= accuracy]
    return min(good, key=lambda point: point.cost, default=None)


def _after(rules: EscalationRules, answer: Answer) -> Rule | None:
    if rules.schema_fails and not answer.is_schema_kept:
        return Rule.SCHEMA
    return answer_rule(replace(rules, schema_fails=False), [HeldChoice(logprobs=answer.logprobs)], None, None)


_MEANS = [-(2.0 ** (exponent / 4)) for exponent in range(-40, 0)]
_LEAST = [-(2.0 ** (exponent / 4)) for exponent in range(-24, 8)]
_PROBABILITIES = [at / 50 for at in range(1, 50)]

Make = Callable[[Any], EscalationRules]
RULES: Mapping[str, tuple[Make, Sequence[float | None]]] = {
    "mean_logprob_below": (lambda at: EscalationRules(mean_logprob_below=at), _MEANS),
    "min_logprob_below": (lambda at: EscalationRules(min_logprob_below=at), _LEAST),
    "classifier": (lambda at: EscalationRules(classifier_above=at), _PROBABILITIES),
    "prompt_matches": (lambda at: EscalationRules(prompt_patterns=PATTERNS), [None]),
    "schema_fails": (lambda at: EscalationRules(schema_fails=True), [None]),
    "prompt_matches + min_logprob_below": (
        lambda at: EscalationRules(prompt_patterns=PATTERNS, min_logprob_below=at),
        _LEAST,
    ),
    "classifier (above 0.9) + min_logprob_below": (
        lambda at: EscalationRules(classifier_above=0.9, min_logprob_below=at),
        _LEAST,
    ),
}
"""By name: the rules at a threshold, and the thresholds that are tried."""
