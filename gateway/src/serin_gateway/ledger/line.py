"""One line of the ledger: one attempt, what it used, what that costs, whose it is.

Knows nothing about where lines are kept, nor about how a request is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from serin_gateway.ledger.price import Price
from serin_gateway.limits.limiter import Amount, BillingLine, Scope

SEPARATOR = "\x1f"
"""Between the parts of a sum's name; in none of them."""

CountedBy = Literal["gateway", "worker", "renewal"]


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose a request is: everything its lines say beside the figures.

    Attributes:
        model: the one that is asked.
        models: all that may be asked, where that is not one alone; their limits are reserved apart then.
    """

    request_id: str
    organization: str
    project: str
    key_id: str
    model: str
    models: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As a lease carries it, for whoever settles the lease when its gateway is gone."""
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Payer":
        """Read it back; members that a newer version wrote are ignored, those that an older one did not know are empty.

        Raises:
            ValueError: not a payer.
        """
        try:
            stored: Mapping[str, Any] = orjson.loads(text)
            known = {name: stored[name] for name in cls.__dataclass_fields__ if name != "models"}
            return cls(**known, models=tuple(stored.get("models", ())))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a payer: {error}") from error

    def scopes(self) -> list[Scope]:
        """Whose days and months it counts in."""
        own = [
            Scope("key", self.key_id),
            Scope("project", self.project),
            Scope("organization", self.organization),
        ]
        return own if self.models else [*own, Scope("model", self.model)]


@dataclass(frozen=True, slots=True)
class Line:
    """One attempt's line.

    Attributes:
        account: the request's lease and the attempt's number, ``<lease>.<n>``: in the ledger at most once.
        version: of the model's weights; prices are by version.
        counted_by: who counted: the gateway that answered; where it died, the worker; where that is gone too, the last
            renewal of the lease.
        posted_nano: the cost where a renewal has said it; None: by the price.
    """

    account: str
    payer: Payer
    version: str
    lane: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    price: Price = field(default_factory=Price)
    counted_by: CountedBy = "gateway"
    posted_nano: int | None = None

    @property
    def amount(self) -> Amount:
        """Its tokens and its cost."""
        cost = self.posted_nano
        if cost is None:
            cost = self.price.cost(self.prompt_tokens, self.cached_tokens, self.completion_tokens)
        return Amount(self.prompt_tokens + self.completion_tokens, cost)

    def billed(self, *, is_repeatable: bool = False) -> BillingLine:
        """As a limiter writes it.

        Args:
            is_repeatable: the answer may be made anew by somebody else, who takes this one's gateway for dead; then it
                costs nothing, or what it cost is taken back.
        """
        nano, payer = self.amount.nano, self.payer
        text: dict[str, Any] = {
            "account": self.account,
            "request_id": payer.request_id,
            "organization": payer.organization,
            "project": payer.project,
            "key_id": payer.key_id,
            "model": payer.model,
            "version": self.version,
            "lane": self.lane,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "price": [self.price.input, self.price.cached_input, self.price.output],
            "nano": nano,
            "counted_by": self.counted_by,
        }
        sums = SEPARATOR.join((payer.organization, payer.project, payer.key_id, payer.model, self.version))
        line = BillingLine(
            sums, self.prompt_tokens, self.cached_tokens, self.completion_tokens, nano, orjson.dumps(text).decode()
        )
        if not is_repeatable:
            return line
        waived = text | {"nano": 0, "superseded": True}
        nothing = {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
        credit = waived | nothing | {"nano": -nano}
        return replace(line, waived_text=orjson.dumps(waived).decode(), credit_text=orjson.dumps(credit).decode())


def total(lines: "list[Line]") -> Amount:
    """Tokens and cost of all of them."""
    amounts = [line.amount for line in lines]
    return Amount(sum(one.tokens for one in amounts), sum(one.nano for one in amounts))
