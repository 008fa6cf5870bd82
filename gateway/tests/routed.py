"""Houses with several models, and requests to them: what tests of routing stand on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from serin_gateway.ask import Ask, Sampling
from serin_gateway.cascades.cascade import Cascade, EscalationRules
from serin_gateway.catalog import Catalog, Policy, ServedModel, TenantNames, Worker
from serin_gateway.collaborators import Arrival
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import Completed, Event, TextChunk
from serin_gateway.keys.records import Role
from serin_gateway.ledger.price import Price
from serin_gateway.pipeline import Request
from serin_gateway.testing import MemoryHouse, Script, saying, small_lane
from serin_gateway.worker import ChoiceMade, TokenLogprob, TokensMade, WorkOrder
from serin_mesh.errors import MeshError

HI = Conversation([Message("user", ["hi"])])
PRICES = {"mini": Price(10, 10, 10), "large": Price(50, 50, 50), "other": Price(20, 20, 20)}


def model(name: str, num_workers: int = 1, **fields: Any) -> ServedModel:
    """A model with one lane, named after it."""
    lane = {one: fields.pop(one) for one in ("vocabulary_digest", "context_length") if one in fields}
    return ServedModel(name, lanes=[small_lane(name, num_workers=num_workers, price=PRICES[name], **lane)], **fields)


def house_of(
    scripts: Mapping[str, Script],
    models: Sequence[ServedModel] | None = None,
    rules: EscalationRules | None = None,
    tenants: Mapping[tuple[str, str], TenantNames] | None = None,
    **parts: Any,
) -> MemoryHouse:
    """A house whose models do what scripts say; with rules, ``smart`` is a cascade from mini to large."""

    def script(worker: Worker, order: WorkOrder) -> Sequence[Any]:
        return scripts[worker.instance.partition("-")[0]](worker, order)

    house = MemoryHouse(script, **parts)
    known = models if models is not None else [model(name) for name in scripts]
    cascades = {"smart": Cascade("smart", "mini", "large", rules)} if rules is not None else {}
    house.catalog.publish(Catalog(known, Policy(), cascades=cascades, tenants=tenants or {}))
    return house


def asking(name: str, *inputs: Any, **fields: Any) -> Ask:
    """A question to what has this name."""
    sampling = Sampling(**{one: fields.pop(one) for one in list(fields) if one in Sampling.__dataclass_fields__})
    return Ask(name, inputs or (HI,), sampling, **fields)


async def make(house: MemoryHouse, role: Role = Role.APP, key: dict[str, Any] | None = None, **arrival: Any) -> Request:
    """A request that has been authenticated."""
    minted = await house.key(role, **(key or {}))
    request = Request(
        house.collaborators, Arrival("rest", key=minted, **{"request_id": "req-1", "timeout_s": 20.0, **arrival})
    )
    await request.authenticate()
    return request


async def answer(request: Request, asked: Ask) -> list[Event]:
    """All events of an answer; the request is settled with what ended it."""
    events: list[Event] = []
    error: MeshError | None = None
    try:
        outbox = await request.begin(asked)
        while not events or not isinstance(events[-1], Completed):
            events += await outbox.take()
    except MeshError as failed:
        error = failed
        raise
    finally:
        await request.settle(error)
    return events


def text(events: Sequence[Event], choice: int = 0) -> str:
    """Text of a choice."""
    return "".join(e.text for e in events if isinstance(e, TextChunk) and e.choice_index == choice)


def sure(logprob: float, *texts: str) -> Script:
    """Says it, each token with this log-probability where anybody asks."""
    say = saying(*texts)

    def script(worker: Worker, order: WorkOrder) -> Sequence[Any]:
        return [
            dataclasses.replace(event, logprobs=[TokenLogprob(logprob, one.alternatives) for one in event.logprobs])
            if isinstance(event, TokensMade)
            else event
            for event in say(worker, order)
        ]

    return script


def failing(error: MeshError, after: int = 0, says: str = "hello") -> Script:
    """Fails so, after so many tokens."""
    say = saying(says)

    def script(worker: Worker, order: WorkOrder) -> Sequence[Any]:
        events = [event for event in say(worker, order) if not isinstance(event, ChoiceMade)]
        return [*events[: after + 1 if after else 0], error]

    return script


def billed(house: MemoryHouse) -> list[tuple[str, int, int]]:
    """The ledger's lines: model, tokens of the answer, nano-units."""
    lines = []
    for line in house.limiter.lines:
        model_name = line.sums.split("\x1f")[3]
        lines.append((model_name, line.completion_tokens, line.nano))
    return lines
