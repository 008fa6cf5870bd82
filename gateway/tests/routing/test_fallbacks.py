"""Fallbacks, in memory: another model answers only where ours cannot, and only while nothing has been said."""

import pytest
from routed import answer, asking, billed, failing, house_of, make, model, text
from serin_gateway.ask import TokenPrompt
from serin_gateway.catalog import TenantNames
from serin_gateway.keys.records import Role
from serin_gateway.limits.limiter import Limits
from serin_gateway.testing import saying
from serin_gateway.worker import WorkStarted
from serin_mesh.errors import MeshError, Reason

FULL = MeshError(Reason.QUEUE_FULL, "full")
GONE = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")
SAYS = {"large": saying("large"), "mini": saying("mini"), "other": saying("other")}
FALLBACK = ["other", "mini"]


def house_with(large, **others):
    """A house whose ``large`` falls back to other, then to mini."""
    others = {name: others.get(name) or model(name) for name in ("other", "mini")}
    return house_of(SAYS, [large, *others.values()])


async def test_a_model_without_a_lane_is_stood_in_for_by_the_next():
    """The answer, its lane, its bill and its receipt are the other model's."""
    house = house_with(model("large", 0, fallbacks=FALLBACK))
    events = await answer(await make(house), asking("large"))
    assert text(events) == "other"
    receipt = house.journal.receipts[0]
    assert (receipt.asked, receipt.model, receipt.lane) == ("large", "other", "other")
    assert receipt.route == "large:fallback:NOT_READY"
    assert billed(house) == [("other", 6, 1)]


async def test_they_are_tried_in_order_and_the_first_error_is_told():
    """Two of three cannot; then none can."""
    house = house_with(model("large", 0, fallbacks=FALLBACK), other=model("other", 0))
    assert text(await answer(await make(house), asking("large"))) == "mini"
    assert house.journal.receipts[0].route == "large:fallback:NOT_READY, other:fallback:NOT_READY"
    none = house_with(model("large", 0, fallbacks=FALLBACK), other=model("other", 0), mini=model("mini", 0))
    with pytest.raises(MeshError, match="model 'large'") as failure:
        await answer(await make(none), asking("large"))
    assert failure.value.reason is Reason.NOT_READY
    assert none.journal.receipts[0].model == "large"


async def test_a_full_queue_falls_back_before_it_is_waited_in():
    """The line before the model is full: another model's is not."""
    house = house_of({**SAYS, "large": failing(FULL)}, [model("large", fallbacks=["mini"]), model("mini")])
    assert text(await answer(await make(house), asking("large"))) == "mini"


async def test_callers_mistakes_and_limits_never_fall_back():
    """Only what is ours: a long prompt, a bad parameter, a key's limit stay what they are."""
    house = house_with(model("large", fallbacks=FALLBACK, context_length=16))
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("large", "x" * 40))
    assert failure.value.reason is Reason.PROMPT_TOO_LONG
    limited = {"limits": Limits(requests_per_minute=1)}
    request = await make(house, key=limited)
    await answer(request, asking("large", "x"))
    again = type(request)(house.collaborators, request.arrival)
    await again.authenticate()
    with pytest.raises(MeshError) as failure:
        await answer(again, asking("large", "x"))
    assert failure.value.reason is Reason.RATE_LIMITED
    assert [worker.instance for worker, _ in house.workers.orders] == ["large-w0"]


async def test_a_models_own_limit_falls_back_and_the_others_holds():
    """What all callers together may ask of a model is its capacity; of the one that stands in its own limit holds."""
    large = model("large", fallbacks=["mini"], limits=Limits(requests_per_minute=1))
    house = house_with(large, mini=model("mini", limits=Limits(requests_per_minute=1)))
    assert [text(await answer(await make(house), asking("large"))) for _ in range(2)] == ["large", "mini"]
    with pytest.raises(MeshError, match="model's limit") as failure:
        await answer(await make(house), asking("large"))
    assert failure.value.reason is Reason.RATE_LIMITED


async def test_a_prompt_that_does_not_fit_the_other_model_keeps_the_first_ones_error():
    """Not ready is what helps: the prompt is not too long for what was asked."""
    house = house_with(model("large", 0, fallbacks=["mini"]), mini=model("mini", context_length=16))
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("large", "x" * 40))
    assert failure.value.reason is Reason.NOT_READY


async def test_nothing_falls_back_once_something_was_said():
    """The last worker dies in the middle of the answer."""
    scripts = {**SAYS, "large": failing(GONE, after=2)}
    house = house_of(scripts, [model("large", fallbacks=["mini"]), model("mini")])
    with pytest.raises(MeshError) as failure:
        await answer(await make(house), asking("large"))
    assert failure.value.reason is Reason.LANE_LOST


async def test_a_worker_that_dies_before_the_first_token_falls_back():
    """Nobody else of the model is left."""
    house = house_of({**SAYS, "large": failing(GONE)}, [model("large", fallbacks=["mini"]), model("mini")])
    assert text(await answer(await make(house), asking("large"))) == "mini"


async def test_pinned_lanes_and_tenants_who_refuse_get_what_they_asked_for():
    """An error is better for them than another model; a key that may not ask the other one has no fallback either."""
    large = model("large", 0, fallbacks=["mini"])
    house = house_with(large)
    with pytest.raises(MeshError):
        await answer(await make(house, Role.OPERATOR, pinned_lane="large"), asking("large"))
    with pytest.raises(MeshError):
        await answer(await make(house, key={"models": ("large",)}), asking("large"))
    refusing = {
        ("default", ""): TenantNames(refuse_fallbacks=True),
        ("default", "web"): TenantNames(refuse_fallbacks=False),
    }
    house = house_of(SAYS, [large, model("mini")], tenants=refusing)
    with pytest.raises(MeshError):
        await answer(await make(house), asking("large"))
    assert text(await answer(await make(house, key={"tenant": "web"}), asking("large"))) == "mini"


async def test_ids_fall_back_within_their_vocabulary_only():
    """A model that reads the ids differently is passed over."""
    large = model("large", fallbacks=FALLBACK)
    other = model("other", vocabulary_digest="another")
    house = house_of({**SAYS, "large": failing(FULL)}, [large, other, model("mini")])
    assert text(await answer(await make(house), asking("large", TokenPrompt([50])))) == "mini"


async def test_several_prompts_go_to_one_model_together():
    """One of them cannot be placed while the other waits for its first token: both are answered by the next model."""
    calls = []

    def once(worker, order):
        calls.append(worker)
        return [FULL] if len(calls) == 2 else [WorkStarted(worker.instance, 0, 0)] * 100

    house = house_of({**SAYS, "large": once}, [model("large", fallbacks=["mini"]), model("mini")])
    events = await answer(await make(house), asking("large", "one", "two"))
    assert [text(events, at) for at in (0, 1)] == ["mini", "mini"]
    assert house.workers.num_running == 0
