"""Answers survive whatever becomes of workers: thousands of seeded faults, in memory, checked against what is right.

``SERIN_SEED`` in the environment replays the seed that a run prints.
"""

import asyncio
import os
import random
from collections import Counter

import pytest
from serin_gateway import failures, pipeline
from serin_gateway.ask import Ask, Sampling
from serin_gateway.catalog import Lane, Worker
from serin_gateway.collaborators import Arrival
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import ChoiceEnded, Completed, Started, TextChunk
from serin_gateway.failures import DEATHS, MAX_DEATHS, Cause
from serin_gateway.pipeline import Request
from serin_gateway.placement import Placement
from serin_gateway.testing import END_ID, MemoryHouse, MemoryLoads, saying, small_catalog, small_lane
from serin_gateway.worker import TokensMade, WorkOrder, WorkStarted
from serin_mesh.errors import MeshError, Reason

NUM_REQUESTS = 3000
AT_ONCE = 20
LANES = {"lane-a": ("grüße aus a, die erste", "zweite"), "lane-b": ("b sagt etwas ganz anderes", "und noch etwas")}
LANES["lane-c"] = LANES["lane-a"]
"""What each lane says: an answer that was continued by one that computes something else would be seen."""

FAULTS = {
    Cause.KILLED: MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed"),
    Cause.SILENT: MeshError(Reason.UPSTREAM_UNAVAILABLE, "nothing said", cause="silent"),
    Cause.STALLED: MeshError(Reason.NOT_READY, "no step", cause="stalled"),
    Cause.DRAINING: MeshError(Reason.NOT_READY, "going", cause="draining"),
    Cause.UNREACHABLE: MeshError(Reason.UPSTREAM_UNAVAILABLE, "no connection", cause="unreachable"),
    Cause.REFUSED: MeshError(Reason.QUEUE_FULL, "full"),
    Cause.GIVEN_UP: MeshError(Reason.CANCELLED, "CANCELLED"),
}
BEFORE_ANYTHING = {Cause.UNREACHABLE, Cause.REFUSED}


class Chaos:
    """Workers that say what is right and let go of it at random; keeps what befell each request."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.reports = MemoryLoads()
        self.befell: dict[int, list[Cause]] = {}
        self.said: dict[int, list[dict[int, list[int]]]] = {}

    def script(self, worker: Worker, order: WorkOrder) -> list:
        """What a worker does with an order: its seed names the request."""
        rng, lane = self.rng, worker.instance[:6]
        number = order.sampling.seed or 0
        events = saying(*LANES[lane], piece=rng.randint(1, 5))(worker, order)
        if rng.random() < 0.1:
            events = [repeated(order, event) for event in events]
        made: dict[int, list[int]] = {}
        self.said.setdefault(number, []).append(made)
        if rng.random() < 0.5:
            return note(made, events)
        cause = rng.choice(list(Cause))
        if rng.random() < 0.5:
            self.reports.silent.clear()  # all of them are heard again
        if cause is Cause.SILENT:
            self.reports.silent.add(worker.endpoint)
        self.befell.setdefault(number, []).append(cause)
        cut = 0 if cause in BEFORE_ANYTHING else rng.randrange(len(events))
        if cause is Cause.KILLED and rng.random() < 0.3:
            return note(made, events[:cut])  # the stream just ends
        return [*note(made, events[:cut]), FAULTS[cause]]


def repeated(order: WorkOrder, event):
    """The event of a worker that says again what it was told."""
    if not isinstance(event, TokensMade):
        return event
    prior = next((one.token_ids for one in order.prior_outputs if one.choice_index == event.choice_index), ())
    if event.first_position != len(prior) or not prior:
        return event
    return TokensMade(event.choice_index, event.first_position - 1, [prior[-1], *event.token_ids], [])


def note(made: dict[int, list[int]], events: list) -> list:
    """The events; what they say is noted by choice."""
    for event in events:
        if isinstance(event, TokensMade):
            made.setdefault(event.choice_index, []).extend(event.token_ids)
    return events


def right(lane: str, choice: int, max_tokens: int) -> tuple[list[int], str]:
    """Ids and text of an undisturbed answer."""
    ids = [*LANES[lane][min(choice, 1)].encode(), END_ID][:max_tokens]
    return ids, bytes(i for i in ids if i < END_ID).decode(errors="replace")


def lane_of(name: str, num_workers: int, like: str = "") -> Lane:
    """A lane whose workers have endpoints of their own; it computes what another one does, or what no other does."""
    workers = [Worker(f"{name}-w{n}", f"{name}:{n}", f"worker.small@{name}", 8) for n in range(num_workers)]
    return small_lane(name, workers=workers, kv_digest=f"kv-{like or name}")


class Ending:
    """What a client saw of one request."""

    def __init__(self) -> None:
        self.events: list = []
        self.error: MeshError | None = None
        self.has_left = False

    def text(self, choice: int) -> str:
        """Text of a choice."""
        return "".join(e.text for e in self.events if isinstance(e, TextChunk) and e.choice_index == choice)

    def ids(self, choice: int) -> list[int]:
        """Ids of a choice."""
        chunks = (e for e in self.events if isinstance(e, TextChunk) and e.choice_index == choice)
        return [token_id for chunk in chunks for token_id in chunk.token_ids]


async def ask(house: MemoryHouse, key: str, number: int, rng: random.Random) -> tuple[Request, Ask, Ending]:
    """One client, which may leave in the middle."""
    sampling = Sampling(seed=number, choice_count=rng.choice((1, 1, 2)), max_tokens=rng.choice((8, 64)))
    asked = Ask("small", [Conversation([Message("user", ["hi"])])], sampling, want_token_ids=True)
    request, ending = Request(house.collaborators, Arrival("rest", f"r{number}", key=key, timeout_s=30)), Ending()
    leaves_after = rng.randrange(12) if rng.random() < 0.1 else None
    await request.authenticate()
    try:
        outbox = await request.begin(asked)
        while not ending.events or not isinstance(ending.events[-1], Completed):
            if leaves_after is not None and len(ending.events) >= leaves_after:
                ending.has_left = True
                break
            ending.events += await outbox.take()
    except MeshError as error:
        ending.error = error
    await request.settle(MeshError(Reason.CANCELLED, "gone") if ending.has_left else ending.error)
    return request, asked, ending


def check(request: Request, asked: Ask, ending: Ending, chaos: Chaos) -> None:
    """Nothing lost, nothing repeated, two models never spliced, and failures only where they must be."""
    number, receipt, longest = asked.sampling.seed or 0, request.receipt, asked.sampling.max_tokens or 0
    befell = chaos.befell.get(number, [])
    is_complete = bool(ending.events) and isinstance(ending.events[-1], Completed)
    assert sum(isinstance(event, Started) for event in ending.events) == (1 if ending.events else 0)
    num_tokens = 0
    for choice in range(asked.sampling.choice_count):
        ids, text = right(receipt.lane, choice, longest) if receipt.lane else ([], "")
        if is_complete:
            assert (ending.ids(choice), ending.text(choice)) == (ids, text)
        else:
            assert ids[: len(ending.ids(choice))] == ending.ids(choice)
            assert text.startswith(ending.text(choice))
        num_tokens += len(ids)
    if is_complete:
        assert receipt.usage.completion_tokens == num_tokens
        assert sum(isinstance(event, ChoiceEnded) for event in ending.events) == asked.sampling.choice_count
    num_deaths = sum(cause in DEATHS for cause in befell)  # of which some may have been heard again
    num_certain = sum(cause in DEATHS - {Cause.SILENT} for cause in befell)
    assert num_certain <= MAX_DEATHS
    if ending.error is not None:
        is_poison = ending.error.reason is Reason.POISON_REQUEST
        assert is_poison or num_certain < MAX_DEATHS, (ending.error, befell)
        assert not is_poison or num_deaths >= MAX_DEATHS, (ending.error, befell)
        if ending.events and not is_poison:
            assert ending.error.reason is Reason.LANE_LOST, ending.error
    if not ending.has_left:
        assert [lost.cause for lost in receipt.lost_workers] == befell[: len(receipt.lost_workers)]
        assert len(befell) - len(receipt.lost_workers) <= 1  # at most the farewell of an answer that was complete


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Seeded randomness; the seed is printed."""
    seed = int(os.environ.get("SERIN_SEED") or random.randrange(2**32))
    print(f"SERIN_SEED={seed} replays {request.node.name}")
    return random.Random(seed)


async def test_thousands_of_faults(rng: random.Random, monkeypatch: pytest.MonkeyPatch):
    """Whatever befalls workers and clients: right, whole or honestly ended; nothing runs on, nothing stays reserved."""
    monkeypatch.setattr(pipeline, "RESUME_PATIENCE_S", 0.01)
    monkeypatch.setattr(failures, "BRIEFLY_AVOIDED_S", 0.001)
    chaos = Chaos(rng)
    house = MemoryHouse(chaos.script, placement=Placement(rng, chaos.reports))
    house.catalog.publish(small_catalog(lane_of("lane-a", 3), lane_of("lane-b", 2), lane_of("lane-c", 2, "lane-a")))
    key = await house.key()
    turn, ends = asyncio.Semaphore(AT_ONCE), Counter[str]()

    async def one(number: int) -> None:
        async with turn:
            request, asked, ending = await ask(house, key, number, random.Random(rng.random()))
            check(request, asked, ending, chaos)
            ends[request.receipt.reason] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(1, NUM_REQUESTS + 1):
            group.create_task(one(number))
    await house.workers.until_running(0)
    assert house.journal.num_open == 0
    assert len(house.journal.receipts) == NUM_REQUESTS
    assert not house.collaborators.leases._held
    num_faults = sum(len(causes) for causes in chaos.befell.values())
    attempts = (attempt for receipt in house.journal.receipts for attempt in receipt.attempts)
    takeovers = Counter((one.lane, one.taken_over_by) for one in attempts if one.taken_over_by)
    print(f"{num_faults} faults, endings {dict(ends)}, {takeovers}")
    assert takeovers.keys() == {("lane-a", "lane-c"), ("lane-c", "lane-a")}
    assert num_faults > NUM_REQUESTS / 2
    assert ends["ok"] > NUM_REQUESTS / 2


async def test_a_prompt_that_kills_is_stopped_across_lanes():
    """Two workers of two lanes died of it before a token: no third lane, no third worker."""
    house = MemoryHouse(lambda worker, order: [WorkStarted(worker.instance, 0, 0), FAULTS[Cause.KILLED]])
    house.catalog.publish(small_catalog(*(lane_of(f"lane-{name}", 1) for name in "abc")))
    request, _, ending = await ask(house, await house.key(), 1, random.Random(3))
    assert ending.error is not None
    assert ending.error.reason is Reason.POISON_REQUEST
    assert len(house.workers.orders) == MAX_DEATHS
    assert request.receipt.reason == "POISON_REQUEST"
