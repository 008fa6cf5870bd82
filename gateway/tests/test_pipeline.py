"""The life of a request, in memory: what each verb promises, and what becomes of failures on the way."""

import asyncio
import dataclasses
import gc
import itertools

import pytest
from serin_gateway import failures, pipeline
from serin_gateway.ask import Ask, Sampling, TokenPrompt
from serin_gateway.catalog import Catalog, ServedModel, Trial, Worker
from serin_gateway.collaborators import Arrival
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import ChoiceEnded, Completed, FinishReason, Started, TextChunk, TextLogprob
from serin_gateway.failures import Cause
from serin_gateway.keys import Role
from serin_gateway.ledger.price import Price
from serin_gateway.limits.leases import RateLimited
from serin_gateway.limits.limiter import Limits
from serin_gateway.observing.record import RequestRecord
from serin_gateway.pipeline import Request
from serin_gateway.placement import Placement
from serin_gateway.recall import Recalled, RecallOutcome, StoredChoice
from serin_gateway.testing import (
    END_ID,
    ByteDetokenizer,
    ByteSequence,
    ByteTokenizer,
    MemoryHouse,
    MemoryLoads,
    saying,
    small_catalog,
    small_lane,
)
from serin_gateway.worker import ChoiceMade, TokenLogprob, TokensMade, WorkDone, WorkStarted
from serin_mesh.errors import MeshError, Reason

HI = Conversation([Message("user", ["hi"])])
GONE = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")
UNREACHED = MeshError(Reason.UPSTREAM_UNAVAILABLE, "no connection", cause="unreachable")


def ask(*inputs, **fields) -> Ask:
    """A question to ``small``."""
    sampling = Sampling(**{name: fields.pop(name) for name in list(fields) if name in Sampling.__dataclass_fields__})
    return Ask("small", inputs or (HI,), sampling, **fields)


async def make(house: MemoryHouse, role: Role = Role.APP, limits: Limits | None = None, **arrival) -> Request:
    """A request that has been authenticated."""
    key = await house.key(role, limits=limits)
    request = Request(
        house.collaborators, Arrival("rest", key=key, **{"request_id": "req-1", "timeout_s": 20.0, **arrival})
    )
    await request.authenticate()
    return request


async def answer(request: Request, asked: Ask) -> list:
    """All events of an answer; the request is settled with what ended it."""
    events, error = [], None
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


def text(events: list, choice: int = 0) -> str:
    """Text of a choice."""
    return "".join(e.text for e in events if isinstance(e, TextChunk) and e.choice_index == choice)


async def refused(request: Request, asked: Ask) -> Reason:
    """Why an ask is refused or fails."""
    with pytest.raises(MeshError) as failure:
        await answer(request, asked)
    return failure.value.reason


def dying_after(num_tokens: int, error: MeshError = GONE, times: int = 1, whole: str = "hello there"):
    """A script: the first ``times`` orders die after so many tokens; later ones say everything."""
    say, deaths = saying(whole), [0]

    def script(worker, order):
        events = say(worker, order)
        if deaths[0] < times:
            deaths[0] += 1
            made = [n for n, event in enumerate(events) if isinstance(event, TokensMade)]
            cut = made[num_tokens] if num_tokens < len(made) else len(events)
            return [*events[: cut if num_tokens else 0], error]
        return events

    return script


def house_of(script=None, num_workers: int = 2, **parts) -> MemoryHouse:
    """A house with several workers on one lane."""
    house = MemoryHouse(script, **parts)
    house.catalog.publish(small_catalog(small_lane(num_workers=num_workers)))
    return house


async def test_a_request_from_arrival_to_account():
    """Events in order; the receipt names everything and every verb has its time; the worker is idle again."""
    house = house_of()
    request = await make(house)
    events = await answer(request, ask())
    assert [type(event) for event in events[:1] + events[-2:]] == [Started, ChoiceEnded, Completed]
    assert text(events) == "hello"
    receipt = house.journal.receipts[0]
    assert (receipt.model, receipt.lane, receipt.reason, receipt.num_attempts) == ("small", "lane-a", "ok", 1)
    assert receipt.worker.startswith("lane-a-w")
    assert receipt.usage.completion_tokens == 6
    verbs = ["authenticate", "admit", "guard", "route", "tokenize", "recall", "place", "generate", "settle"]
    assert list(receipt.verbs) == verbs
    assert receipt.first_token_s <= receipt.last_token_s <= receipt.duration_s
    assert (house.workers.num_running, house.journal.num_open) == (0, 0)


async def test_several_prompts_are_one_request():
    """Choices are numbered through; usage is summed."""
    request = await make(house_of(saying("a", "bc")))
    events = await answer(request, ask("one", TokenPrompt([50, 51]), choice_count=2))
    assert [text(events, choice) for choice in range(4)] == ["a", "bc", "a", "bc"]
    assert sorted(e.first_choice_index for e in events if isinstance(e, Started)) == [0, 2]
    assert events[-1].usage.prompt_tokens == 5
    assert events[-1].usage.completion_tokens == 2 * (2 + 3)


async def test_a_lost_worker_is_replaced_and_nothing_is_said_twice():
    """The next worker is given what was made; text, ids and bill are those of an undisturbed run."""
    house = house_of(dying_after(4))
    request = await make(house)
    events = await answer(request, ask(want_token_ids=True))
    assert text(events) == "hello there"
    ids = [i for e in events if isinstance(e, TextChunk) for i in e.token_ids]
    assert ids == [*b"hello there", END_ID]
    assert events[-1].usage.completion_tokens == len(ids)
    (first, order), (second, resumed) = house.workers.orders
    assert first.instance != second.instance
    assert order.prior_outputs == []
    assert [(one.choice_index, bytes(one.token_ids), one.finished) for one in resumed.prior_outputs] == [
        (0, b"hell", False)
    ]
    assert resumed.sampling.seed == order.sampling.seed
    receipt = house.journal.receipts[0]
    assert receipt.num_resumes == 1
    ((worker, cause, pause_s),) = [(lost.worker, lost.cause, lost.pause_s) for lost in receipt.lost_workers]
    assert (worker, cause) == (first.instance, Cause.KILLED)
    assert pause_s is not None
    assert receipt.worker == second.instance


async def test_finished_choices_are_not_continued():
    """Of two choices one was complete when the worker died."""
    house = house_of(dying_after(7, whole="abc"))
    events = await answer(await make(house), ask(choice_count=2))
    assert [text(events, choice) for choice in (0, 1)] == ["abc", "abc"]
    prior = house.workers.orders[1][1].prior_outputs
    assert [(bytes(i for i in one.token_ids if i < END_ID), one.finished) for one in prior] == [
        (b"abc", True),
        (b"abc", False),
    ]


async def test_a_worker_that_repeats_is_heard_once_and_one_that_leaves_a_gap_is_refused():
    """Positions decide."""

    def repeating(worker, order):
        return [WorkStarted("w", 0, 0), TokensMade(0, 0, list(b"ab"), []), *saying("abc")(worker, order)[1:]]

    assert text(await answer(await make(house_of(repeating)), ask())) == "abc"

    def gap(worker, order):
        return [WorkStarted("w", 0, 0), TokensMade(0, 1, list(b"b"), [])]

    assert await refused(await make(house_of(gap)), ask()) is Reason.INTERNAL


async def test_a_request_that_kills_two_workers_gets_no_third():
    """POISON_REQUEST, whether or not there was output."""
    for num_tokens in (0, 3):
        house = house_of(dying_after(num_tokens, times=9), num_workers=5)
        assert await refused(await make(house), ask()) is Reason.POISON_REQUEST
        assert len(house.workers.orders) == 2


async def test_workers_that_cannot_be_reached_are_not_killed_by_it():
    """All of them may be tried; then the error is theirs, not the request's."""
    house = house_of(dying_after(0, UNREACHED, times=3), num_workers=4)
    assert text(await answer(await make(house), ask())) == "hello there"
    house = house_of(dying_after(0, UNREACHED, times=9), num_workers=3)
    assert await refused(await make(house), ask()) in (Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY)


async def test_the_caller_hears_why_the_last_lane_let_go():
    """Not that no lane is left, and nothing that a transport says: it names machines."""
    house = house_of(dying_after(0, UNREACHED, times=99), num_workers=1)
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), ask())
    assert failure.value.message == "the model's last worker cannot be reached; try again"


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("num_lanes", [1, 2])
@pytest.mark.parametrize("begun", [False, True])
async def test_where_work_could_move(num_workers: int, num_lanes: int, begun: bool):
    """To another worker of its lane; with nothing said yet to another lane too; else nowhere."""
    loads = MemoryLoads()
    house = MemoryHouse(placement=Placement(loads=loads))
    lanes = [small_lane("lane-a", 100, num_workers), small_lane("lane-b", 1)][:num_lanes]
    house.catalog.publish(small_catalog(*lanes))
    request = await make(house)
    if not begun:
        house.workers.hold.clear()
    answering = asyncio.create_task(answer(request, ask()))
    await house.workers.until_running(1)
    ((worker, _),) = house.workers.orders
    if begun:
        await answering
    loads.silent = {worker.endpoint}
    assert house.workers.may_move() == (num_workers == 2 or (num_lanes == 2 and not begun))
    house.catalog.publish(Catalog())  # the model is gone: nowhere, and no error for whoever watches all workers
    assert not house.workers.may_move()
    house.workers.hold.set()
    await answering


async def test_a_full_queue_is_tried_elsewhere_and_then_reported():
    """QUEUE_FULL goes on to the next worker; from the last one it reaches the caller."""
    full = MeshError(Reason.QUEUE_FULL, "full")
    assert text(await answer(await make(house_of(dying_after(0, full))), ask())) == "hello there"
    assert await refused(await make(house_of(dying_after(0, full, times=9))), ask()) is Reason.QUEUE_FULL


async def test_the_workers_refusal_of_a_request_is_not_retried():
    """What the worker says about a parameter goes to the caller as it is."""
    bad = MeshError(Reason.PARAMETER_INVALID, "logit_bias: 999 is no id", parameter="logit_bias")
    house = house_of(dying_after(0, bad, times=9))
    assert await refused(await make(house), ask()) is Reason.PARAMETER_INVALID
    assert len(house.workers.orders) == 1


async def test_another_lane_before_the_first_token_and_never_after(monkeypatch):
    """A lane that is gone is replaced while nothing was said; afterwards the stream is lost with it."""
    monkeypatch.setattr(pipeline, "RESUME_PATIENCE_S", 0.01)

    def only_on(lane: str, after: int):
        say = saying("hello")

        def script(worker, order):
            if worker.instance.startswith(lane):
                return say(worker, order)
            return [*say(worker, order)[: after + 1 if after else 0], MeshError(Reason.LANE_GONE, "gone")]

        return script

    for after, expected in ((0, "hello"), (2, None)):
        house = MemoryHouse(only_on("lane-b", after))
        house.catalog.publish(small_catalog(small_lane("lane-a", 1000), small_lane("lane-b", 1)))
        request = await make(house, session_id="s")
        if expected is None:
            assert await refused(request, ask()) is Reason.LANE_LOST
        else:
            assert text(await answer(request, ask())) == expected
            assert house.journal.receipts[0].lane == "lane-b"
            assert house.journal.receipts[0].num_attempts == 2


def two_lanes(canary: dict, stable: dict) -> Catalog:
    """A canary that all sessions are on, with one worker, and a stable lane with one; they differ in what is given."""
    workers = [Worker(f"{name}-w0", f"{name}:1", f"worker.small@{name}", 8) for name in ("canary", "stable")]
    same = {"kv_digest": "kv", "price": Price(1000, 1000, 1000)}
    return small_catalog(
        small_lane("canary", 10_000, **{**same, "workers": workers[:1], **canary}),
        small_lane("stable", 1, **{**same, "workers": workers[1:], **stable}),
        trial=Trial("stable", "canary", 1.0),
    )


def canary_lost(error: MeshError = GONE):
    """A script: whatever begins on the canary dies after four tokens; the stable lane says everything."""
    say = saying("hello there")

    def script(worker, order):
        events = say(worker, order)
        return [*events[:5], error] if worker.instance.startswith("canary") else events

    return script


@pytest.mark.parametrize("error", [GONE, MeshError(Reason.NOT_READY, "going", cause="draining")])
@pytest.mark.parametrize("is_withdrawn", [False, True])
async def test_a_begun_answer_goes_on_on_another_lane_that_computes_the_same(error: MeshError, is_withdrawn: bool):
    """The canary's last worker dies or drains, its lane is still published or withdrawn: one answer, one bill."""
    house = MemoryHouse(canary_lost(error))
    house.catalog.publish(two_lanes({}, {"price": Price(9000, 9000, 9000)}))
    house.workers.hold.clear()
    request = await make(house, session_id="s")
    answering = asyncio.create_task(answer(request, ask()))
    await house.workers.until_running(1)
    if is_withdrawn:
        stable = house.catalog.current().models[0].lanes[1]
        house.catalog.publish(small_catalog(stable))
    house.workers.hold.set()
    events = await answering
    assert text(events) == "hello there"
    (_, order), (second, resumed) = house.workers.orders
    assert (second.instance, resumed.sampling) == ("stable-w0", order.sampling)
    assert bytes(resumed.prior_outputs[0].token_ids) == b"hell"
    (receipt,) = house.journal.receipts
    (attempt,) = receipt.attempts
    assert (receipt.lane, receipt.worker, receipt.num_attempts, receipt.num_resumes) == ("canary", "stable-w0", 1, 1)
    assert (attempt.lane, attempt.taken_over_by, attempt.cluster) == ("canary", "stable", "worker.small@stable")
    assert RequestRecord.of(receipt, 1, 0.0).attempts[0].taken_over_by == "stable"
    assert (attempt.reason, attempt.lane_reason) == ("ok", "LANE_LOST")
    assert house.shadow.offered == []  # it is no lane's own answer
    (line,) = house.limiter.lines
    assert (line.completion_tokens, line.nano) == (12, len("user: hi\n") + 12)  # at the price that it began with


@pytest.mark.parametrize(
    "stable", [{"kv_digest": "other"}, {"vocabulary_digest": "other"}, {"context_length": 20}, {"workers": []}]
)
async def test_a_begun_answer_is_lost_where_no_lane_computes_the_same(monkeypatch, stable: dict):
    """Other weights, other ids, a context that is too short, nobody there: two models are never spliced."""
    monkeypatch.setattr(pipeline, "RESUME_PATIENCE_S", 0.01)
    house = MemoryHouse(canary_lost())
    house.catalog.publish(two_lanes({}, stable))
    assert await refused(await make(house, session_id="s"), ask(max_tokens=20)) is Reason.LANE_LOST
    assert [worker.instance for worker, _ in house.workers.orders] == ["canary-w0"]


async def test_lanes_without_a_kv_digest_are_not_the_same():
    """Nobody has said what they compute."""
    lanes = [small_lane("a", kv_digest=""), small_lane("b", kv_digest="")]
    assert [lane.lane for lane in ServedModel("small", lanes=lanes).lanes_to_go_on(lanes[0], 1)] == ["a"]


async def test_who_chose_a_lane_gets_nothing_of_another(monkeypatch):
    """They ask what this lane says: golden questions do."""
    monkeypatch.setattr(pipeline, "RESUME_PATIENCE_S", 0.01)
    house = MemoryHouse(canary_lost())
    house.catalog.publish(two_lanes({}, {}))
    assert await refused(await make(house, Role.OPERATOR, pinned_lane="canary"), ask()) is Reason.LANE_LOST


async def test_a_begun_answer_stays_on_its_lane_while_that_has_a_worker():
    """Its own lane first, whatever has less to do."""
    house = MemoryHouse(dying_after(4))
    own = [Worker(f"canary-w{n}", f"canary:{n}", "worker.small@canary", 8) for n in range(2)]
    house.catalog.publish(two_lanes({"workers": own}, {}))
    assert text(await answer(await make(house, session_id="s"), ask())) == "hello there"
    (receipt,) = house.journal.receipts
    assert (receipt.worker[:6], receipt.attempts[0].taken_over_by) == ("canary", "")
    assert receipt.attempts[0].lane_reason == "ok"
    assert len(house.shadow.offered) == 1


async def test_a_begun_stream_waits_for_a_worker_of_its_lane():
    """The only worker dies; another one of the lane appears in time and goes on."""
    house = house_of(dying_after(4), num_workers=1)
    request = await make(house)
    outbox = await request.begin(ask())
    events = await outbox.take()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(house.workers.orders) == 1
    house.catalog.publish(small_catalog(small_lane(num_workers=2)))
    while not isinstance(events[-1], Completed):
        events += await outbox.take()
    await request.settle()
    assert text(events) == "hello there"


async def test_a_begun_stream_is_lost_when_no_worker_appears(monkeypatch):
    """After a bounded wait; what was used until then is settled."""
    monkeypatch.setattr(pipeline, "RESUME_PATIENCE_S", 0.01)
    house = house_of(dying_after(4), num_workers=1)
    assert await refused(await make(house), ask()) is Reason.LANE_LOST
    receipt = house.journal.receipts[0]
    assert (receipt.reason, receipt.usage.completion_tokens) == ("LANE_LOST", 4)


async def test_a_choice_that_a_stop_string_ended_is_ignored_from_then_on():
    """The worker goes on with it beside the other choice: no gap, no text, and no token of it is counted or resumed."""
    say = saying("one two three", "no end " * 4)

    def script(worker, order):
        events = say(worker, order)
        made = [[e for e in events if getattr(e, "choice_index", None) == choice] for choice in (0, 1)]
        mixed = [event for pair in itertools.zip_longest(*made) for event in pair if event is not None]
        if order.prior_outputs:
            return [events[0], *mixed, events[-1]]
        return [events[0], *mixed[:24], GONE]

    house = house_of(script)
    events = await answer(await make(house), ask(choice_count=2, stop_strings=["two"]))
    assert [text(events, choice) for choice in (0, 1)] == ["one ", "no end " * 4]
    assert events[-1].usage.completion_tokens == len("one two") + len("no end " * 4) + 1
    first, second = house.workers.orders[1][1].prior_outputs
    assert (bytes(first.token_ids)[:7], first.finished, second.finished) == (b"one two", True, False)


async def test_a_full_queue_does_not_end_a_begun_stream(monkeypatch):
    """Its worker dies while the other one is full: it is asked again, and the stream goes on."""
    monkeypatch.setattr(failures, "BRIEFLY_AVOIDED_S", 0.001)
    monkeypatch.setattr(pipeline, "LOOK_AGAIN_S", 0.002)
    say, num_orders = saying("hello there"), [0]

    def script(worker, order):
        num_orders[0] += 1
        if num_orders[0] == 1:
            return [*say(worker, order)[:5], GONE]
        return [MeshError(Reason.QUEUE_FULL, "full")] if num_orders[0] < 5 else say(worker, order)

    house = house_of(script)
    assert text(await answer(await make(house), ask())) == "hello there"
    assert [lost.cause for lost in house.journal.receipts[0].lost_workers] == ["killed", *["refused"] * 3]


async def test_losses_of_one_prompt_are_bounded():
    """However many workers there are and however harmless the cause: eight, and the caller is told."""
    for num_tokens, reason in ((0, Reason.NOT_READY), (2, Reason.LANE_LOST)):
        draining = MeshError(Reason.NOT_READY, "going", cause="draining")
        house = house_of(dying_after(num_tokens, draining, times=99, whole="x" * 99), num_workers=20)
        assert await refused(await make(house), ask()) is reason
        assert len(house.workers.orders) == failures.MAX_LOSSES


async def test_a_worker_that_comes_back_elsewhere_is_another_one(monkeypatch):
    """A restarted process keeps its name and has a new endpoint: the stream may go on there."""
    house = house_of(dying_after(4), num_workers=1)
    request = await make(house)
    outbox = await request.begin(ask())
    events = await outbox.take()
    (worker,) = house.catalog.current().models[0].lanes[0].workers
    restarted = dataclasses.replace(worker, endpoint="127.0.0.1:9999")
    house.catalog.publish(small_catalog(small_lane(workers=[restarted])))
    while not isinstance(events[-1], Completed):
        events += await outbox.take()
    await request.settle()
    assert text(events) == "hello there"


async def test_an_answer_goes_on_in_its_own_numerics_class():
    """Of the workers left, one that is known to compute as the first did is chosen."""
    say = saying("hello")

    def script(worker, order):
        kind = "class-a" if worker.endpoint.endswith(("0", "2")) else "class-b"
        events = say(worker, order)
        events[0] = WorkStarted(worker.instance, 0, 0, kind)
        return events if order.prior_outputs or order.sampling.seed == 0 else [*events[:3], GONE]

    house = house_of(script, num_workers=4)
    for worker in house.catalog.current().models[0].lanes[0].workers:
        kind = "class-a" if worker.endpoint.endswith(("0", "2")) else "class-b"
        house.collaborators.placement.learn(worker, kind)
    for n in range(30):
        house.workers.orders.clear()
        await answer(await make(house), ask(seed=n + 1))
        first, second = (worker.endpoint for worker, _ in house.workers.orders)
        assert first.endswith(("0", "2")) == second.endswith(("0", "2"))


async def test_a_token_that_cannot_be_spelled_is_not_the_workers_fault():
    """The tokenizer is gone while log-probabilities are reported: it is named, no worker is blamed or asked again."""

    class Gone(ByteTokenizer):
        num_calls = 0

        async def token_bytes(self, scope, token_ids):
            self.num_calls += 1
            if self.num_calls > 2:
                raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "tokenizer.small is gone", service="tokenizer")
            return await super().token_bytes(scope, token_ids)

    house = house_of(tokenizer=Gone())
    with pytest.raises(MeshError, match=r"tokenizer\.small is gone"):
        await answer(await make(house), ask(top_logprobs=2))
    assert len(house.workers.orders) == 1
    assert house.journal.receipts[0].lost_workers == []


async def test_ids_are_refused_too_where_no_tokenizer_would_make_a_text_of_the_answer():
    """Before a worker is asked: nothing has been made that would be worth waiting for."""

    class Silent(ByteTokenizer):
        def expect(self, scope):
            raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "tokenizer.small is silent", service="tokenizer")

    house = house_of(tokenizer=Silent())
    with pytest.raises(MeshError, match=r"tokenizer\.small is silent"):
        await answer(await make(house), ask(TokenPrompt((104, 105))))
    assert house.workers.orders == []


async def test_a_begun_answer_needs_no_tokenizer_to_find_a_worker():
    """The worker dies while the lane's tokenizer restarts: another worker goes on, text waits by itself."""
    house = house_of(dying_after(4), num_workers=1)
    outbox = await (request := await make(house)).begin(ask())
    events = await outbox.take()
    house.catalog.publish(small_catalog(small_lane(num_workers=2, tokenizers=[])))
    while not isinstance(events[-1], Completed):
        events += await outbox.take()
    await request.settle()
    assert text(events) == "hello there"


async def test_text_that_cannot_go_on_is_not_the_workers_fault():
    """The detokenizer fails: no other worker is tried, and nobody is blamed."""

    class Failing(ByteSequence):
        def append(self, token_ids):
            super().append(token_ids)
            gone = MeshError(Reason.UPSTREAM_UNAVAILABLE, "the tokenizer is gone")
            asyncio.get_running_loop().call_soon(self._sink.failed, gone)

    class Opening(ByteDetokenizer):
        def open(self, scope, sink, **options):
            return Failing(sink, (), 0)

    house = house_of(detokenizer=Opening())
    assert await refused(await make(house), ask()) is Reason.UPSTREAM_UNAVAILABLE
    assert len(house.workers.orders) == 1
    assert house.journal.receipts[0].lost_workers == []


async def test_a_stop_string_ends_the_work_at_once():
    """The worker's call is over before it has made the rest; tokens behind the stop are not counted."""
    house = house_of(saying("one two " + "x" * 500))
    events = await answer(await make(house), ask(stop_strings=["two"], max_tokens=600))
    assert text(events) == "one "
    end = next(event for event in events if isinstance(event, ChoiceEnded))
    assert (end.finish_reason, end.stop_string) == (FinishReason.STOP, "two")
    assert events[-1].usage.completion_tokens == 7


async def test_nothing_ready_nothing_there_nothing_published():
    """503, 404, 503."""
    house = house_of(num_workers=0)
    assert await refused(await make(house), ask()) is Reason.NOT_READY
    assert await refused(await make(house), dataclasses.replace(ask(), model="nope")) is Reason.MODEL_NOT_FOUND
    empty = MemoryHouse()
    empty.catalog.publish(None)
    assert await refused(await make(empty), ask()) is Reason.NOT_READY


async def test_a_prompt_that_is_too_long_or_empty():
    """Both numbers in one sentence; an empty prompt is a parameter's fault."""
    house = house_of()
    with pytest.raises(MeshError, match=r"1024 tokens; the model's context is 1024"):
        await answer(await make(house), ask("x" * 1024))
    assert await refused(await make(house), ask("")) is Reason.PARAMETER_INVALID


async def test_the_answer_is_bounded_by_the_model_and_the_context():
    """Its default where nothing is asked, what the context leaves where more is asked."""
    house = house_of()
    await answer(await make(house), ask("x" * 1000))
    await answer(await make(house), ask("x" * 1000, max_tokens=500))
    await answer(await make(house), ask("x"))
    assert [order.sampling.max_tokens for _, order in house.workers.orders] == [24, 24, 64]


async def test_limits_are_reserved_and_settled():
    """The bound of a request is taken at admission; after it only what was used is gone."""
    house = house_of()
    limits = Limits(tokens_per_minute=6000, concurrent_requests=1)
    request = await make(house, limits=limits)
    outbox = await request.begin(ask(max_tokens=100))
    assert request.standing.remaining_tokens == 6000 - (2 + 64 + 256 + 100)
    again = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-2"))
    await again.authenticate()
    with pytest.raises(RateLimited):
        await again.begin(ask())
    await again.settle()
    while not isinstance((await outbox.take())[-1], Completed):
        pass
    await request.settle()
    third = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-3"))
    await third.authenticate()
    await third.begin(ask(max_tokens=100))
    assert third.standing.remaining_tokens == 6000 - (9 + 6) - (2 + 64 + 256 + 100)
    await third.settle()


async def test_what_fits_the_limit_is_never_refused_by_a_loose_bound():
    """Where a prompt's bytes bound more than the limit allows, its tokens are counted first and reserved exactly."""
    house = house_of(saying("hello"))
    limits = Limits(tokens_per_minute=100)
    request = await make(house, limits=limits)
    asked = Conversation([Message("user", ["x" * 28])])  # "user: xxx...\n": 35 ids
    outbox = await request.begin(ask(asked, max_tokens=8))
    await outbox.take()
    house.workers.hold.clear()
    assert request.standing.remaining_tokens == 100 - 35 - 8
    second = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-2"))
    await second.authenticate()
    with pytest.raises(RateLimited) as refusal:  # 43 and 65 are more than 100
        await answer(second, ask(asked, max_tokens=30))
    assert refusal.value.metadata["limit"] == "tokens"
    assert refusal.value.metadata["retry_after_s"]
    house.workers.hold.set()
    events = await outbox.take()
    while not isinstance(events[-1], Completed):
        events = await outbox.take()
    await request.settle()
    third = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-3"))
    await third.authenticate()
    assert text(await answer(third, ask(asked, max_tokens=24))) == "hello"  # 35 + 6 were used; 59 are left
    assert third.standing.remaining_tokens == 0


async def test_a_nearly_used_budget_takes_as_many_as_their_tokens_allow():
    """344 bytes bound 35 tokens, with 8 of the answer: of 400 tokens a day nine calls at once get theirs, no tenth."""
    house = house_of(saying("hello"))
    limits = Limits(tokens_per_day=400, concurrent_requests=20)
    asked = ask(Conversation([Message("user", ["x" * 28])]), max_tokens=8)
    house.workers.hold.clear()
    requests = [await make(house, limits=limits)]
    for number in range(2, 11):
        again = Request(house.collaborators, dataclasses.replace(requests[0].arrival, request_id=f"req-{number}"))
        await again.authenticate()
        requests.append(again)
    *fit, last = [await request.begin(asked) for request in requests]
    with pytest.raises(RateLimited, match=r"400 tokens per day \(this request may use up to 43\) is reached"):
        await last.take()
    await house.workers.until_running(9)
    house.workers.hold.set()
    for outbox in fit:
        while not isinstance((await outbox.take())[-1], Completed):
            pass
    for request in requests:
        await request.settle()
    usages = [receipt.usage.total_tokens for receipt in house.journal.receipts]
    assert sorted(usages) == [0] + [41] * 9


async def test_enough_budget_asks_the_limiter_no_more_often():
    """One call to admit and one to settle, however loose the bound is; what it was too much is free at a renewal."""
    house = house_of(saying("hello"))
    request = await make(house, limits=Limits(tokens_per_day=10_000))
    calls = []
    leases = house.collaborators.leases
    limiter = leases._limiter
    for verb in ("reserve", "grow", "renew", "settle"):
        made = getattr(limiter, verb)
        setattr(limiter, verb, lambda *given, verb=verb, made=made: (calls.append(verb), made(*given))[1])
    house.workers.hold.clear()
    outbox = await request.begin(ask(Conversation([Message("user", ["x" * 28])]), max_tokens=8))
    assert request.standing.remaining_tokens == 10_000 - 28 - 64 - 256 - 8
    await house.workers.until_running(1)
    assert calls == ["reserve"]
    await leases.renew_all()
    other = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-2"))
    await other.authenticate()
    await other.admit(ask(), with_answer=False)
    assert other.standing.remaining_tokens == 10_000 - 35 - 8
    await other.settle()
    house.workers.hold.set()
    while not isinstance((await outbox.take())[-1], Completed):
        pass
    await request.settle()
    assert calls == ["reserve", "renew", "reserve", "settle", "settle"]


async def test_what_can_never_fit_is_told_its_exact_size():
    """Prompt and answer as they were counted, and that trying again does not help; a request was counted, no token."""
    house = house_of()
    limits = Limits(tokens_per_minute=100)
    with pytest.raises(
        RateLimited, match=r"up to 103 tokens .* key's limit of 100 tokens per minute ever allows"
    ) as refusal:
        await answer(await make(house, limits=limits), ask("x" * 98, max_tokens=5))
    assert refusal.value.metadata["should_retry"] == "false"
    assert refusal.value.standing.remaining_tokens == 100
    assert house.workers.orders == []


async def test_prompts_that_are_counted_share_one_reservation():
    """Several prompts of one request: each is covered before it is answered, together they never pass the limit."""
    house = house_of(saying("ab"))
    prompts = [Conversation([Message("user", ["x" * 12])])] * 3  # 19 ids each
    limits = Limits(tokens_per_minute=66)
    request = await make(house, limits=limits)
    await answer(request, ask(*prompts, max_tokens=3))
    assert len(house.workers.orders) == 3
    assert request.standing.remaining_tokens == 0
    with pytest.raises(RateLimited, match="up to 69 tokens"):
        await answer(await make(house, limits=limits), ask(*prompts, max_tokens=4))


async def test_asking_what_was_used_changes_nothing():
    """A renewal in the middle of an answer reads usage; the receipt is written at its end."""
    house = house_of(saying("hello"))
    request = await make(house, limits=Limits(tokens_per_minute=1000))
    outbox = await request.begin(ask())
    await outbox.take()
    before = request.receipt.usage
    await house.collaborators.leases.renew_all()
    assert request.receipt.usage is before
    assert request.receipt.usage.total_tokens == 0
    await request.settle()
    assert request.receipt.usage.total_tokens > 0


async def test_lanes_are_chosen_by_operators_alone():
    """Others are refused by role; a lane that is not there is gone."""
    house = house_of()
    assert await refused(await make(house, pinned_lane="lane-a"), ask()) is Reason.ROLE_INSUFFICIENT
    await answer(await make(house, Role.OPERATOR, pinned_lane="lane-a"), ask())
    assert await refused(await make(house, Role.OPERATOR, pinned_lane="nope"), ask()) is Reason.LANE_GONE


async def test_sessions_are_sticky_by_the_best_key_there_is():
    """x-session-id, then prompt_cache_key, previous_response_id, user; tenants' sessions are apart."""
    house = MemoryHouse()
    house.catalog.publish(small_catalog(small_lane("lane-a", 50), small_lane("lane-b", 50)))

    async def lane(keys=(), **arrival) -> str:
        await answer(await make(house, **arrival), ask(session_keys=keys))
        return house.journal.receipts[-1].lane

    for n in range(8):
        expected = small_catalog(*house.catalog.current().models[0].lanes).models[0].choose_lane(f"default\0s{n}").lane
        assert await lane(session_id=f"s{n}") == expected
        assert await lane([f"s{n}", "other"]) == expected
        assert await lane(["other"], session_id=f"s{n}") == expected
    assert {await lane(request_id=f"r{n}") for n in range(40)} == {"lane-a", "lane-b"}


async def test_a_deadline_ends_an_answer():
    """DEADLINE_EXCEEDED, and the worker's work is aborted."""
    house = house_of()
    house.workers.hold.clear()
    request = await make(house, timeout_s=0.05)
    assert await refused(request, ask()) is Reason.DEADLINE_EXCEEDED
    assert house.workers.num_running == 0


async def test_a_cancelled_request_frees_everything_and_is_settled():
    """Whoever waits is cancelled: work is aborted, the lease given back, the receipt written."""
    house = house_of(saying("hello"))
    limits = Limits(concurrent_requests=1)
    request = await make(house, limits=limits)
    outbox = await request.begin(ask())
    await outbox.take()
    house.workers.hold.clear()
    await request.settle(asyncio.CancelledError())
    assert house.workers.num_running == 0
    assert house.journal.receipts[0].reason == "CANCELLED"
    again = Request(house.collaborators, dataclasses.replace(request.arrival, request_id="req-2"))
    await again.authenticate()
    house.workers.hold.set()
    assert text(await answer(again, ask())) == "hello"


async def test_a_settlement_is_finished_whoever_is_cancelled():
    """The one who waits for it may go; it happens once, and to its end."""
    house = house_of()
    request = await make(house, limits=Limits(concurrent_requests=1))
    await (await request.begin(ask())).take()
    house.workers.hold.clear()
    settling = asyncio.create_task(request.settle(asyncio.CancelledError()))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    await request.settle()
    assert [receipt.reason for receipt in house.journal.receipts] == ["CANCELLED"]


class Remembering:
    """A memory that gives and keeps answers."""

    def __init__(self, answer=None):
        self.answer = answer
        self.kept = []

    async def recall(self, scope, key, *, allow_answer):
        """The answer, if one will do."""
        return Recalled(self.answer if allow_answer else None, {})

    async def keep(self, scope, key, answer):
        """Keep it."""
        self.kept.append((key, answer))


async def test_a_stored_answer_replaces_the_work():
    """With text, reason and usage as they were; and it is not kept again."""
    stored = [StoredChoice(list(b"known"), [], FinishReason.LENGTH)]
    house = house_of(memory=Remembering(stored))
    request = await make(house)
    events = await answer(request, ask(temperature=0.0, allow_cached_answer=True))
    assert text(events) == "known"
    assert events[-1].usage.cached_tokens == events[-1].usage.prompt_tokens
    assert house.workers.orders == []
    assert house.collaborators.memory.kept == []
    (receipt,) = house.journal.receipts
    assert receipt.cached_answer
    assert [attempt.recall for attempt in receipt.attempts] == [RecallOutcome.ANSWER]
    assert receipt.attempts[0].recall_s > 0


@pytest.mark.parametrize(
    ("num_workers", "fields", "outcome"),
    [
        (1, {}, RecallOutcome.SKIPPED),
        (2, {}, RecallOutcome.MISSED),
        (1, {"temperature": 0.0, "allow_cached_answer": True}, RecallOutcome.MISSED),
    ],
)
async def test_the_memory_is_asked_where_something_depends_on_it(num_workers, fields, outcome):
    """An only worker gets the prompt whatever it holds of it, unless an answer may do."""
    house = house_of(num_workers=num_workers, memory=Remembering())
    await answer(await make(house), ask(**fields))
    assert [attempt.recall for attempt in house.journal.receipts[0].attempts] == [outcome]


async def test_the_memory_is_asked_while_lanes_are_compared():
    """What a recall brings is one of the things that are compared."""
    house = house_of(memory=Remembering())
    trial = Trial("lane-a", "lane-b")
    house.catalog.publish(small_catalog(small_lane(), trial=trial))
    await answer(await make(house), ask())
    assert [attempt.recall for attempt in house.journal.receipts[0].attempts] == [RecallOutcome.MISSED]


async def test_answers_are_kept_only_when_they_may_be_shared():
    """Greedy and allowed: kept up to what counts. Anything else: not."""
    house = house_of(saying("hello"), memory=Remembering())
    await answer(await make(house), ask(temperature=0.0, allow_cached_answer=True, stop_strings=["lo"]))
    await answer(await make(house), ask(temperature=0.0))
    await answer(await make(house), ask(temperature=0.0))
    ((key, kept),) = house.collaborators.memory.kept
    assert [(bytes(choice.token_ids), choice.stop_string) for choice in kept] == [(b"hello", "lo")]
    assert (key.cache_group, list(key.stop_strings)) == ("default", ["lo"])


async def test_a_slow_reader_holds_up_the_worker():
    """Memory stays bounded: no more is read than fits, and everything arrives in the end."""
    house = house_of(saying("x" * 900))
    request = await make(house)
    request.outbox._room_characters = 50
    outbox = await request.begin(ask(max_tokens=950))
    events = await outbox.take()
    for _ in range(2000):
        await asyncio.sleep(0)
    held = await outbox.take()
    assert sum(len(event.text) for event in held if isinstance(event, TextChunk)) < 200
    events += held
    while not isinstance(events[-1], Completed):
        events += await outbox.take()
    await request.settle()
    assert text(events) == "x" * 900


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_answer_that_is_over_holds_no_place(is_late):
    """Its reader may take its time: others go on as soon as no worker works for it."""
    house = house_of(saying("hello"))
    if is_late:
        house.workers.hold.clear()
    request = await make(house, timeout_s=1.0 if is_late else 20.0)
    outbox = await request.begin(ask())
    (turnstile,) = house.collaborators.turnstiles.by_model.values()
    await asyncio.wait(request._tasks)
    assert turnstile.is_empty
    if is_late:
        with pytest.raises(MeshError):
            await outbox.take()
    else:
        assert isinstance((await outbox.take())[-1], Completed)
    await request.settle()
    assert turnstile.is_empty


async def test_counting_tokens_reserves_no_answer():
    """Only the prompt is made."""
    house = house_of()
    request = await make(house, limits=Limits(tokens_per_minute=1))
    assert await request.count(ask("abc")) == 3
    await request.settle()
    assert house.workers.orders == []


async def test_a_model_without_a_published_context_is_still_bounded():
    """A catalog entry without ready lanes reserves what the caller asks."""
    house = MemoryHouse()
    house.catalog.publish(Catalog([ServedModel("small")]))
    assert await refused(await make(house, limits=Limits(tokens_per_minute=1000)), ask()) in (
        Reason.NOT_READY,
        Reason.RATE_LIMITED,
    )


@pytest.mark.parametrize("is_read", [True, False])
async def test_alternatives_are_let_go_with_their_text(is_read):
    """Of a long answer to many choices only what its reader has not taken is held, and no more than has room."""

    def num_held() -> int:
        return sum(type(one) is TextLogprob and len(one.alternatives) > 0 for one in gc.get_objects())

    def scripted(worker, order):
        yield WorkStarted(worker.instance, 0, 1)
        for at, choice in itertools.product(range(100), range(4)):
            yield TokensMade(choice, at, [65], [TokenLogprob(-0.1, [(byte, -3.0) for byte in range(65, 85)])])
        for choice in range(4):
            yield ChoiceMade(choice, FinishReason.LENGTH, None)
        yield WorkDone()

    request = await make(house_of(scripted))
    outbox = await request.begin(ask("hi", choice_count=4, top_logprobs=20, max_tokens=100))
    most, events, num_taken = 0, [], 0
    while not events or not isinstance(events[-1], Completed):
        for _ in range(0 if is_read else 500):
            await asyncio.sleep(0)  # whoever makes it goes as far as is let
        num_taken += 1
        if num_taken % (50 if is_read else 5) == 0:  # a look at everything takes a while
            most = max(most, num_held())
        events = await outbox.take()
    (attempt,) = request._attempts
    assert all(len(choice.logprobs) == 100 for choice in attempt._generation.choices)
    assert not any(one.alternatives for choice in attempt._generation.choices for one in choice.logprobs)
    await request.settle()
    assert 0 < most < 100
