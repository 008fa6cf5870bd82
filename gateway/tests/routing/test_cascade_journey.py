"""Cascades, in memory: what each rule decides, what is held back, what is billed, and how it can fail."""

import asyncio
import json
from dataclasses import replace

import pytest
from routed import HI, answer, asking, billed, failing, house_of, make, model, sure, text
from serin_gateway.ask import TokenPrompt
from serin_gateway.cascades import held as held_module
from serin_gateway.cascades.cascade import EscalationRules
from serin_gateway.cascades.held import HeldOutbox
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import (
    Completed,
    ReasoningChunk,
    Started,
    TextChunk,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
)
from serin_gateway.grammar import Grammar, GrammarKind
from serin_gateway.keys.records import Role
from serin_gateway.limits.limiter import Limits
from serin_gateway.outbox import Outbox
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.routing import cascade_journey
from serin_gateway.testing import ByteTokenizer, saying
from serin_gateway.tools import Tool
from serin_mesh.errors import MeshError, Reason

UNSURE = EscalationRules(mean_logprob_below=-0.7)
BOTH = {"mini": sure(-0.5, "small words"), "large": saying("large words")}
FULL = MeshError(Reason.QUEUE_FULL, "full")
GONE = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def route(house):
    """How the only request came to its model."""
    return house.journal.receipts[-1].route


async def test_a_good_answer_is_given_whole_and_only_its_model_is_asked():
    """No rule holds: events in order, one line, the model that answered is named."""
    house = house_of(BOTH, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert text(events) == "small words"
    assert isinstance(events[0], Started)
    assert events[-1].usage.completion_tokens == len("small words") + 1
    assert [worker.instance for worker, _ in house.workers.orders] == ["mini-w0"]
    receipt = house.journal.receipts[0]
    assert (receipt.asked, receipt.model, receipt.lane, receipt.route) == ("smart", "mini", "mini", "smart:kept")
    assert [name for name, _, _ in billed(house)] == ["mini"]


async def test_nothing_is_seen_before_the_decision():
    """While the first model works the reader has nothing; then everything is there at once."""
    house = house_of(BOTH, rules=UNSURE)
    house.workers.hold.clear()
    request = await make(house)
    outbox = await request.begin(asking("smart"))
    await house.workers.until_running(1)
    assert not outbox.has_begun
    assert request.receipt.first_token_s is None
    house.workers.hold.set()
    events = await outbox.take()
    assert isinstance(events[-1], Completed)
    assert text(events) == "small words"
    assert request.receipt.first_token_s is not None
    await request.settle()


async def test_an_unsure_answer_is_thrown_away_and_both_models_are_billed():
    """The caller sees the second model's answer and its usage; the ledger has a line of each, and their sums."""
    house = house_of({"mini": sure(-0.9, "small words"), "large": saying("large words, two")}, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert text(events) == "large words, two"
    assert len([event for event in events if isinstance(event, Started)]) == 1
    assert events[-1].usage.completion_tokens == 17
    receipt = house.journal.receipts[0]
    assert (receipt.model, receipt.lane, receipt.route) == ("large", "large", "smart:escalated:mean_logprob")
    # 9 tokens of prompt ("user: hi\n"), 12 and 17 of answers, at 10 and 50 pico-units
    assert billed(house) == [("mini", 12, 1), ("large", 17, 2)]
    assert {name: used.completion_tokens for name, used in receipt.billed.items()} == {"mini": 12, "large": 17}
    assert [(one.model, one.thrown_away, one.reason) for one in receipt.attempts] == [
        ("mini", True, "ok"),
        ("large", False, "ok"),
    ]


async def test_the_second_answer_streams_live():
    """Its tokens are there before it is complete."""
    house = house_of({"mini": sure(-0.9, "s"), "large": saying("large words")}, rules=UNSURE)
    request = await make(house)
    outbox = await request.begin(asking("smart"))
    events = await outbox.take()
    assert not isinstance(events[-1], Completed)
    assert house.workers.num_running == 1
    while not isinstance(events[-1], Completed):
        events += await outbox.take()
    await request.settle()
    assert text(events) == "large words"


@pytest.mark.parametrize(
    ("rules", "logprob", "route_"),
    [
        (EscalationRules(mean_logprob_below=-1.0), -1.1, "smart:escalated:mean_logprob"),
        (EscalationRules(mean_logprob_below=-1.0), -0.9, "smart:kept"),
        (EscalationRules(min_logprob_below=-2.0), -2.1, "smart:escalated:min_logprob"),
        (EscalationRules(min_logprob_below=-2.0), -1.9, "smart:kept"),
    ],
)
async def test_log_probabilities_decide_on_either_side_of_their_threshold(rules, logprob, route_):
    """The worker is asked how sure it is, though the caller did not; the caller is told nothing of it."""
    house = house_of({"mini": sure(logprob, "abc"), "large": saying("x")}, rules=rules)
    events = await answer(await make(house), asking("smart", want_token_ids=True))
    assert route(house) == route_
    assert house.workers.orders[0][1].sampling.top_logprobs == 0
    assert not any(event.logprobs for event in events if isinstance(event, TextChunk))


async def test_log_probabilities_that_the_caller_wants_stay_right():
    """As many alternatives as were asked for, from the model that answers."""
    house = house_of({"mini": sure(-0.1, "ab"), "large": saying("x")}, rules=UNSURE)
    events = await answer(await make(house), asking("smart", top_logprobs=2))
    spelled = [one for event in events if isinstance(event, TextChunk) for one in event.logprobs]
    assert [(one.token, one.logprob, len(one.alternatives)) for one in spelled] == [("a", -0.1, 2), ("b", -0.1, 2)]


async def test_one_bad_choice_of_several_is_enough():
    """All choices of all prompts are one answer: given together, or not at all."""
    rules = EscalationRules(schema_fails=True)
    grammar = Grammar(GrammarKind.JSON_SCHEMA, SCHEMA)
    house = house_of({"mini": saying('{"n": 1}', '{"n": "x"}'), "large": saying('{"n": 2}')}, rules=rules)
    events = await answer(await make(house), asking("smart", "one", "two", choice_count=2, grammar=grammar))
    assert [text(events, at) for at in range(4)] == ['{"n": 2}'] * 4
    assert route(house) == "smart:escalated:schema"
    assert [name for name, _, _ in billed(house)] == ["mini", "mini", "large", "large"]


async def test_an_answer_that_is_cut_short_is_no_answer_of_a_schema():
    """Constrained to JSON, and stopped by its length."""
    rules = EscalationRules(schema_fails=True)
    grammar = Grammar(GrammarKind.JSON_SCHEMA, SCHEMA)
    house = house_of({"mini": saying('{"n": 1234567}'), "large": saying('{"n":2}')}, rules=rules)
    await answer(await make(house), asking("smart", grammar=grammar, max_tokens=8))
    assert route(house) == "smart:escalated:schema"


async def test_calls_that_a_tool_does_not_take_are_escalated():
    """Arguments are checked against the tool's own schema; good ones are kept, and given in one go."""
    calling = Conversation([Message("user", ["hi"])], tools=[Tool("f", "", SCHEMA)])
    tokenizer = ByteTokenizer(AnswerForm(calls=CallForm.HERMES))
    for arguments, expected in (('{"n": 1}', "smart:kept"), ('{"m": 1}', "smart:escalated:schema")):
        call = f'<tool_call>\n{{"name": "f", "arguments": {arguments}}}\n</tool_call>'
        house = house_of(
            {"mini": saying(call), "large": saying("no")}, rules=EscalationRules(schema_fails=True), tokenizer=tokenizer
        )
        events = await answer(await make(house), replace(asking("smart", calling, max_tokens=200), is_streamed=True))
        assert route(house) == expected
        told = [event.arguments_json for event in events if isinstance(event, ToolCallGrew)]
        assert told == ([arguments] if expected == "smart:kept" else [])
    cut = replace(asking("smart", calling, max_tokens=len(call) - 20), is_streamed=True)
    events = await answer(await make(house), cut)
    assert text(events) == call[:-20], "what is held is no call before it is whole"


async def test_what_the_prompt_decides_costs_nothing_of_the_first_model():
    """A pattern in the last turn, or a long prompt: the first model is not asked."""
    rules = EscalationRules(prompt_patterns=("(?i)prove that",), prompt_longer_than=40)
    for prompt, expected in (
        ("Prove that it halts", "smart:escalated:prompt_matches"),
        ("x" * 41, "smart:escalated:prompt_longer"),
        ("hello", "smart:kept"),
    ):
        house = house_of(BOTH, rules=rules)
        await answer(await make(house), asking("smart", prompt))
        assert route(house) == expected
        assert [name for name, _, _ in billed(house)] == ["mini" if expected == "smart:kept" else "large"]


@pytest.mark.parametrize(
    ("hint", "expected", "says"),
    [
        ("first", "smart:kept:hint", "small words"),
        ("then", "smart:escalated:hint", "large words"),
        ("auto", "smart:escalated:mean_logprob", "large words"),
        ("", "smart:escalated:mean_logprob", "large words"),
    ],
)
async def test_callers_may_decide_where_the_cascade_lets_them(hint, expected, says):
    """`first` streams live, whatever the rules say of the answer."""
    rules = EscalationRules(mean_logprob_below=-0.7, hint=True)
    house = house_of({"mini": sure(-0.9, "small words"), "large": saying("large words")}, rules=rules)
    events = await answer(await make(house, cascade_hint=hint), asking("smart"))
    assert (route(house), text(events)) == (expected, says)


@pytest.mark.parametrize(("hint", "allowed", "says"), [("first", False, "does not let"), ("both", True, "first, then")])
async def test_a_hint_that_is_not_accepted_is_refused(hint, allowed, says):
    """By name; a model takes any hint and does nothing with it."""
    house = house_of(BOTH, rules=EscalationRules(mean_logprob_below=-0.7, hint=allowed))
    with pytest.raises(MeshError, match=says) as failure:
        await answer(await make(house, cascade_hint=hint), asking("smart"))
    assert failure.value.metadata["parameter"] == "serin-cascade"
    await answer(await make(house, cascade_hint=hint), asking("mini"))


@pytest.mark.parametrize("cannot", [FULL, MeshError(Reason.NOT_READY, "not now", cause="draining")])
async def test_a_first_model_that_cannot_is_passed_over(cannot):
    """Its lanes are full or gone: the second model answers, and nothing of the first is billed."""
    house = house_of({"mini": failing(cannot), "large": saying("large words")}, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert (text(events), route(house)) == ("large words", "smart:escalated:unavailable")
    assert [line for line in billed(house) if line[1]] == [("large", 12, 2)]


async def test_without_a_lane_of_the_first_model():
    """Nothing of it is ready at all."""
    house = house_of(BOTH, [model("mini", 0), model("large")], rules=UNSURE)
    await answer(await make(house), asking("smart"))
    assert route(house) == "smart:escalated:unavailable"


async def test_a_first_answer_that_is_lost_on_the_way():
    """Its last worker dies in the middle: nobody has seen anything, so the second model begins; both are billed."""
    house = house_of({"mini": failing(GONE, after=3), "large": saying("large words")}, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert text(events) == "large words"
    assert route(house) == "smart:escalated:failed"
    assert billed(house) == [("mini", 3, 1), ("large", 12, 2)]


async def test_a_first_answer_goes_on_on_another_worker():
    """Resume is what it is without a cascade: held text is complete, and so are its log-probabilities."""
    deaths = []
    say = sure(-0.9, "small words")

    def dying(worker, order):
        if deaths:
            return say(worker, order)
        deaths.append(worker)
        return [*say(worker, order)[:5], GONE]

    house = house_of({"mini": dying, "large": saying("x")}, [model("mini", 2), model("large")], rules=UNSURE)
    await answer(await make(house), asking("smart"))
    assert route(house) == "smart:escalated:mean_logprob"
    assert house.journal.receipts[0].attempts[0].num_answer_tokens == 12
    kept = house_of(
        {"mini": dying, "large": saying("x")}, [model("mini", 2), model("large")], rules=EscalationRules(hint=True)
    )
    deaths.clear()
    assert text(await answer(await make(kept), asking("smart"))) == "small words"


async def test_a_prompt_too_long_for_the_first_model_goes_to_the_second():
    """Its context is shorter; the caller's other mistakes are refused at once."""
    models = [model("mini", context_length=16), model("large")]
    house = house_of(BOTH, models, rules=UNSURE)
    await answer(await make(house), asking("smart", "x" * 40))
    assert route(house) == "smart:escalated:unsuited"
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("smart", ""))
    assert failure.value.reason is Reason.PARAMETER_INVALID


async def test_where_the_second_model_cannot_answer_a_held_answer_is_better_than_none():
    """Unsure, but whole: given, and said so. One that is known to be wrong is not: the error is."""
    house = house_of({"mini": sure(-0.9, "small words"), "large": failing(FULL)}, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert (text(events), route(house)) == ("small words", "smart:kept:then_failed")
    assert events[-1].usage.completion_tokens == 12
    receipt = house.journal.receipts[0]
    assert (receipt.model, receipt.lane, receipt.worker) == ("mini", "mini", "mini-w0")
    schema = EscalationRules(schema_fails=True)
    grammar = Grammar(GrammarKind.JSON_SCHEMA, SCHEMA)
    house = house_of({"mini": saying("no json"), "large": failing(FULL)}, rules=schema)
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("smart", grammar=grammar))
    assert failure.value.reason is not Reason.INTERNAL
    assert [line for line in billed(house) if line[1]] == [("mini", 8, 1)]


async def test_a_second_model_that_fails_after_it_began_fails_the_request():
    """Its text is out: nothing of the held answer can follow it."""
    house = house_of({"mini": sure(-0.9, "small"), "large": failing(GONE, after=2)}, rules=UNSURE)
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("smart"))
    assert failure.value.reason is Reason.LANE_LOST


async def test_where_no_time_is_left_a_held_answer_is_given(monkeypatch):
    """Escalating would end in nothing at the deadline."""
    monkeypatch.setattr(cascade_journey, "MIN_ESCALATION_S", 60.0)
    house = house_of({"mini": sure(-0.9, "small words"), "large": saying("x")}, rules=UNSURE)
    events = await answer(await make(house), asking("smart"))
    assert (text(events), route(house)) == ("small words", "smart:kept:late")


async def test_what_is_held_back_is_bounded(monkeypatch):
    """An answer larger than may be held is stopped, billed, and the second model answers."""
    monkeypatch.setattr(held_module, "MAX_HELD_CHARACTERS", 20)
    monkeypatch.setattr(held_module.HeldOutbox.__init__, "__defaults__", (20,))
    house = house_of({"mini": sure(-0.1, "x" * 500), "large": saying("y" * 200)}, rules=UNSURE)
    events = await answer(await make(house), asking("smart", max_tokens=600))
    assert (text(events), route(house)) == ("y" * 200, "smart:escalated:too_large")
    (mini, large) = billed(house)
    assert 20 <= mini[1] < 100
    assert large[1] == 201
    assert house.workers.num_running == 0


def test_reasoning_and_calls_count_as_held_too():
    """Whatever an answer is made of, its memory is bounded; what was held comes out in order."""
    call = [ToolCallBegun(0, 0, "1", "f"), ToolCallGrew(0, 0, "b" * 400), ToolCallEnded(0, 0, is_whole=True)]
    events = [ReasoningChunk(0, "a" * 500), *call, TextChunk(0, "c" * 300, [], [])]
    held, outbox = HeldOutbox(1000), Outbox()
    for event, is_over in zip(events, (False, False, True, True, True), strict=True):
        held.put(event)
        assert held.overflowed.is_set() is is_over
    held.release(outbox)
    assert outbox._drained() == events


async def test_a_caller_who_leaves_while_an_answer_is_held_frees_everything():
    """The worker is told, places and reservations are free, what was made is billed."""
    limits = Limits(concurrent_requests=1)
    models = [model("mini", limits=limits), model("large", limits=limits)]
    house = house_of({"mini": sure(-0.1, "small words"), "large": saying("x")}, models, rules=UNSURE)
    house.workers.hold.clear()
    request = await make(house, key={"limits": limits})
    await request.begin(asking("smart"))
    await house.workers.until_running(1)
    await request.settle(asyncio.CancelledError())
    assert house.workers.num_running == 0
    assert house.journal.receipts[0].reason == "CANCELLED"
    house.workers.hold.set()
    for name in ("mini", "large", "smart"):
        assert text(await answer(await make(house, key={"limits": limits}), asking(name)))
    assert all(turnstile.num_running == 0 for turnstile in house.collaborators.turnstiles.by_model.values())


async def test_the_most_of_both_models_is_reserved_and_only_what_was_used_stays():
    """At the key both answers; at each model its own, and the second one's only once it is asked."""
    limits, few = Limits(tokens_per_minute=10_000), Limits(tokens_per_minute=4000, requests_per_minute=9)
    models = [model("mini", limits=limits), model("large", limits=few)]
    house = house_of({"mini": sure(-0.1, "small words"), "large": saying("x")}, models, rules=UNSURE)
    request = await make(house, key={"limits": limits})
    outbox = await request.begin(asking("smart", max_tokens=50))
    bound = 2 + 64 + 256  # bytes of the conversation, and what a template may add
    assert request.standing.remaining_tokens == 10_000 - 2 * (bound + 50)
    while not isinstance((await outbox.take())[-1], Completed):
        pass
    await request.settle()
    again = await make(house, key={"limits": limits})
    outbox = await again.begin(asking("large", max_tokens=50))
    assert again.standing.remaining_requests == 8  # the cascade never came to it
    assert again.standing.remaining_tokens == 4000 - (bound + 50)
    await again.settle()


async def test_a_models_own_limit_is_its_capacity_a_keys_is_not():
    """The first model's limit is reached: the second answers. The key's is: nobody does."""
    models = [model("mini", limits=Limits(requests_per_minute=1)), model("large")]
    house = house_of({"mini": sure(-0.1, "s"), "large": saying("l")}, models, rules=UNSURE)
    texts = [text(await answer(await make(house), asking("smart"))) for _ in range(2)]
    assert texts == ["s", "l"]
    assert route(house) == "smart:escalated:unavailable"
    limited = {"limits": Limits(requests_per_minute=1)}
    request = await make(house, key=limited)
    await answer(request, asking("smart"))
    again = type(request)(house.collaborators, request.arrival)
    await again.authenticate()
    with pytest.raises(MeshError) as failure:
        await answer(again, asking("smart"))
    assert failure.value.metadata["scope"] == "key"


async def test_ids_need_one_vocabulary():
    """Prompts of ids, or ids among the parameters: refused where the two models would read them differently."""
    models = [model("mini", vocabulary_digest="one"), model("large", vocabulary_digest="two")]
    house = house_of(BOTH, models, rules=UNSURE)
    for asked in (asking("smart", TokenPrompt([50])), asking("smart", logit_bias={5: 1.0})):
        with pytest.raises(MeshError, match="different vocabularies"):
            await answer(await make(house), asked)
    alike = house_of(BOTH, rules=UNSURE)
    assert text(await answer(await make(alike), asking("smart", TokenPrompt([50])))) == "small words"


async def test_a_cascade_has_no_lane_to_pin_and_its_tokens_can_be_counted():
    """Lanes belong to models; a count is the first model's."""
    house = house_of(BOTH, rules=UNSURE)
    with pytest.raises(MeshError, match="name that one"):
        await answer(await make(house, Role.OPERATOR, pinned_lane="mini"), asking("smart"))
    request = await make(house)
    assert await request.count(asking("smart", HI)) == len("user: hi\n")
    await request.settle()
    assert house.workers.orders == []
