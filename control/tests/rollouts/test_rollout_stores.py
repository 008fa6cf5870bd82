"""Both stores of rollouts keep the same promises; the one in Redis survives."""

import json
from dataclasses import replace

import pytest
from control_rollouts import rollout, spec, versions
from control_valkey import Valkey
from redis.asyncio import Redis
from serin_control.errors import NotLeading, RolloutConflict, RolloutNotFound, StoreDown
from serin_control.instance import Service
from serin_control.judge.verdict import MetricVerdict, Verdict
from serin_control.plan import Share
from serin_control.rollouts.act import Act
from serin_control.rollouts.redis_store import ROLLOUTS, RedisRollouts
from serin_control.rollouts.rollout import State
from serin_control.rollouts.seals import Seal, Seals
from serin_control.rollouts.standing import Standing
from serin_control.rollouts.store import Book, Change, Leader, MemoryRollouts, Page
from serin_control.rollouts.withdrawal import Withdrawal

ANN, BOB = Leader("c1", "127.0.0.1:1", "boot-a"), Leader("c2", "127.0.0.1:2", "boot-b")
FULL = replace(
    rollout(spec={"tolerances": {"errors": 0.02}}),
    verdicts=(MetricVerdict("errors", Verdict.WAIT, 0.1, -0.1, 0.3, 7, 0.0, 0.1, 0.02, "ü", "share"),),
    reason="x",
)
V1, V2 = (Share(versions("v1"), 100),), (Share(versions("v2"), 10_000),)
STANDING = Standing("small", V1).moved_to(V2, V1, 5.0)


@pytest.fixture(params=["memory", "redis"])
async def store(request, tmp_path):
    """Each store in turn."""
    if request.param == "memory":
        yield MemoryRollouts()
        return
    server = await Valkey(tmp_path).start()
    kept = RedisRollouts(server.url)
    yield kept
    await kept.close()
    await server.stop()


def act(what: str, name: str = "small-1") -> Act:
    """A line of the history."""
    return Act(1.0, name, "ann", what, "why", "cli")


async def test_empty_at_first(store):
    """A new store knows nothing; revision 0 is known to everybody."""
    assert await store.read(0) is None
    assert await store.read(-1) == Book()
    assert await store.rollouts("", 10, "") == Page([])
    assert await store.acts("", 10, "") == ([], "")
    assert await store.rollout("small-1") is None
    assert await store.judge("small-1") is None
    assert await store.golden("small-1") == ""


async def test_one_leads_and_a_process_that_comes_back_does_in_a_new_term(store):
    """Another one waits; the same name under another boot takes over at once; giving up frees the lead."""
    assert await store.lead(ANN, 60) == replace(ANN, term=1)
    assert await store.lead(ANN, 60) == replace(ANN, term=1)
    assert (await store.lead(BOB, 60)).name == "c1"
    again = replace(ANN, boot="boot-c")
    assert (await store.lead(again, 60)).term == 2
    await store.resign(ANN)
    assert (await store.lead(BOB, 60)).name == "c1"
    await store.resign(again)
    assert await store.lead(BOB, 60) == replace(BOB, term=3)


async def test_what_is_written_together_is_there_together(store):
    """The book, the rollout, the standing, the history with the term; whoever knows the revision reads nothing."""
    leader = await store.lead(ANN, 60)
    first = await store.write(leader, Book(), Change((act("start"),), FULL, STANDING, golden="{}"))
    assert (first.rollouts, first.standings) == ({"small": FULL}, {"small": STANDING})
    assert await store.read(0) == first
    assert await store.read(first.revision) is None
    assert await store.rollout("small-1") == FULL
    assert await store.golden("small-1") == "{}"
    frozen = await store.write(leader, first, Change((act("freeze", ""),), frozen="xmas"))
    assert (await store.read(0)).frozen == "xmas"
    ended = replace(FULL, state=State.ABORTED)
    last = await store.write(leader, frozen, Change((act("abort"),), ended, frozen=""))
    assert (last.rollouts, last.frozen, last.standings) == ({}, "", {"small": STANDING})
    assert await store.read(0) == last
    assert await store.rollout("small-1") == ended
    found, more = await store.acts("small-1", 10, "")
    assert [(one.what, one.term, one.identity) for one in found] == [("abort", 1, "cli"), ("start", 1, "cli")]
    assert more == ""


async def test_files_that_were_accepted_are_kept_beside_what_stands(store):
    """Whoever writes a standing or a rollout, also a version that knows nothing of files, leaves them as they are."""
    leader = await store.lead(ANN, 60)
    seals = Seals("small", (Seal(Service.WORKER, "v1", "a1"), Seal(Service.TOKENIZER, "v1", "70", "ff")))
    book = await store.write(leader, Book(), Change((), seals=seals))
    book = await store.write(leader, book, Change((act("start"),), FULL, STANDING))
    assert book.seals == {"small": seals}
    assert await store.read(0) == book


async def test_what_a_version_wrote_that_knew_nothing_of_files_is_read(valkey):
    """A rollout and a standing without them."""
    kept = RedisRollouts(valkey.url)
    leader = await kept.lead(ANN, 60)
    await kept.write(leader, Book(), Change((act("start"),), FULL, STANDING))
    async with Redis.from_url(valkey.url, decode_responses=True) as redis:
        for field, gone in (("rollout/small", "canary_files"), ("standing/small", "left")):
            text = json.loads(await redis.hget(ROLLOUTS + "book", field))
            for one in [text, *text.get("kept", [])]:
                one.pop(gone, None)
            await redis.hset(ROLLOUTS + "book", field, json.dumps(text))
    book = await kept.read(-1)
    assert (book.rollouts, book.standings, book.seals) == ({"small": FULL}, {"small": STANDING}, {})
    await kept.close()


async def test_who_leads_no_more_or_has_not_looked_writes_nothing(store):
    """Terms and revisions are compared in the store itself."""
    old = await store.lead(ANN, 60)
    book = await store.write(old, Book(), Change((act("start"),), FULL))
    with pytest.raises(RolloutConflict):
        await store.write(old, Book(), Change((act("step"),), FULL))
    await store.resign(ANN)
    new = await store.lead(BOB, 60)
    for write in (
        store.write(old, book, Change((act("step"),), replace(FULL, weight=100))),
        store.keep(old, replace(FULL, weight=100), {}),
    ):
        with pytest.raises(NotLeading, match="c2 leads by now") as refused:
            await write
        assert refused.value.leader == "127.0.0.1:2"
    assert (await store.rollout("small-1")).weight == 0
    assert [one.what for one in (await store.acts("", 10, ""))[0]] == ["start"]
    await store.write(new, book, Change((act("step"),), replace(FULL, weight=100)))


async def test_that_a_rollout_was_taken_back_anybody_may_put_into_the_book(store):
    """Without the lead, once; a rollout that does not run is none; it leaves the book with its rollout."""
    leader = await store.lead(ANN, 60)
    book = await store.write(leader, Book(), Change((act("start"),), FULL))
    ended = replace(FULL, state=State.ABORTED)
    first, again = (Withdrawal(ended, act(what)) for what in ("abort", "abort again"))
    for one in (first, again, Withdrawal(replace(ended, id="small-7"), act("abort", "small-7"))):
        await store.withdraw(one)
    now = await store.read(book.revision)
    assert (now.revision, now.rollouts, now.withdrawn) == (book.revision + 1, {"small": FULL}, {"small-1": first})
    with pytest.raises(RolloutConflict):
        await store.write(leader, book, Change((act("step"),), replace(FULL, weight=100)))
    last = await store.write(leader, now, Change((act("abort"),), ended))
    assert last == await store.read(0)
    assert (last.rollouts, last.withdrawn) == ({}, {})
    await store.withdraw(again)
    assert await store.read(last.revision) is None
    assert [one.what for one in (await store.acts("", 10, ""))[0]] == ["abort", "start"]


async def test_progress_is_kept_without_a_line_in_the_history(store):
    """How far the judge has come; the revision stays; whoever reads afresh sees it."""
    leader = await store.lead(ANN, 60)
    book = await store.write(leader, Book(), Change((act("start"),), FULL))
    further = replace(FULL, num_requests=7, spent_s=3.5)
    await store.keep(leader, further, {"a": [1, 2.5]})
    assert await store.judge("small-1") == {"a": [1, 2.5]}
    assert await store.rollout("small-1") == further
    assert await store.read(book.revision) is None
    assert (await store.read(-1)).rollouts == {"small": further}


async def test_what_is_kept_for_a_judge_goes_with_its_rollout(store):
    """Also where its leader, who lost the answer to the write of its end, keeps its progress once more."""
    leader = await store.lead(ANN, 60)
    other = replace(FULL, id="big-2", spec=spec(model="big"))
    book = await store.write(leader, Book(), Change((act("start"),), FULL, golden="{}"))
    book = await store.write(leader, book, Change((act("start", "big-2"),), other, golden="[]"))
    for one in (FULL, other):
        await store.keep(leader, one, {"n": 1})
    ended = replace(FULL, state=State.ABORTED)
    book = await store.write(leader, book, Change((act("abort"),), ended))
    assert (await store.judge("small-1"), await store.golden("small-1")) == (None, "")
    assert (await store.judge("big-2"), await store.golden("big-2")) == ({"n": 1}, "[]")
    late = replace(FULL, num_requests=7)
    await store.keep(leader, late, {"n": 2})
    assert (await store.judge("small-1"), await store.rollout("small-1")) == (None, ended)
    following = replace(FULL, id="small-3")
    book = await store.write(leader, book, Change((act("start", "small-3"),), following, golden="{}"))
    await store.keep(leader, late, {"n": 3})
    assert (await store.read(0)).rollouts == {"small": following, "big": other}
    assert (await store.judge("small-1"), await store.rollout("small-1")) == (None, ended)
    assert await store.golden("small-3") == "{}"


async def test_rollouts_and_history_come_in_pages_newest_first(store):
    """Each is on exactly one page, also when a model is asked for."""
    leader, book = await store.lead(ANN, 60), Book()
    for number in range(7):
        model = "small" if number % 2 else "s-2"
        one = replace(FULL, id=f"{model}-{await store.next_number()}", state=State.ABORTED, spec=spec(model=model))
        book = await store.write(leader, book, Change((act("start", one.id), act("abort", one.id)), one))
    seen, after = [], ""
    while True:
        page, after, _ = await store.rollouts("", 3, after)
        seen += [one.id for one in page]
        if not after:
            break
    assert seen == ["s-2-7", "small-6", "s-2-5", "small-4", "s-2-3", "small-2", "s-2-1"]
    page, after, _ = await store.rollouts("small", 2, "")
    assert ([one.id for one in page], after) == (["small-6", "small-4"], "small-4")
    page, after, _ = await store.rollouts("small", 2, after)
    assert ([one.id for one in page], after) == (["small-2"], "")
    history, after = [], ""
    while True:
        acts, after = await store.acts("", 4, after)
        history += [(one.rollout, one.what) for one in acts]
        if not after:
            break
    assert history[:3] == [("s-2-7", "abort"), ("s-2-7", "start"), ("small-6", "abort")]
    assert len(history) == 14
    only, after = await store.acts("small-2", 1, "")
    assert ([one.what for one in only], bool(after)) == (["abort"], True)
    assert [one.what for one in (await store.acts("small-2", 5, after))[0]] == ["start"]


async def test_what_earlier_versions_kept_of_ended_rollouts_goes_with_the_next_write(valkey):
    """Whatever is written; what runs keeps its own, and a record that nobody can read is no obstacle."""
    store = RedisRollouts(valkey.url)
    leader = await store.lead(ANN, 60)
    book = await store.write(leader, Book(), Change((act("start"),), FULL, golden="{}"))
    await store.keep(leader, FULL, {"n": 1})
    async with Redis.from_url(valkey.url, decode_responses=True) as raw:
        await raw.hset(ROLLOUTS + "book", mapping={"rollout/big": "damaged", "rollout/tiny": "null"})
        for key in ("judges", "golden"):
            await raw.hset(ROLLOUTS + key, mapping={"small-0": "{}", "gone-7": "{}"})
        await store.write(leader, book, Change((act("freeze", ""),), frozen="xmas"))
        assert [await raw.hkeys(ROLLOUTS + key) for key in ("judges", "golden")] == [["small-1"], ["small-1"]]
    assert (await store.judge("small-1"), await store.golden("small-1")) == ({"n": 1}, "{}")
    await store.close()


async def test_redis_keeps_over_its_own_death_and_says_when_it_is_away(valkey):
    """SIGKILL after the answer loses nothing of the book, the history or the judge."""
    store = RedisRollouts(valkey.url)
    leader = await store.lead(ANN, 60)
    book = await store.write(leader, Book(), Change((act("start"),), FULL, STANDING))
    await store.keep(leader, FULL, {"n": 1})
    await valkey.stop()
    with pytest.raises(StoreDown):
        await store.read(0)
    with pytest.raises(StoreDown):
        await store.write(leader, book, Change((act("step"),), FULL))
    await valkey.start()
    assert await store.read(0) == book
    assert await store.judge("small-1") == {"n": 1}
    assert len((await store.acts("", 10, ""))[0]) == 1
    await store.close()


async def test_a_lead_lapses_when_nobody_renews_it(valkey):
    """The other one leads after its time to live."""
    store = RedisRollouts(valkey.url)
    await store.lead(ANN, 0.05)
    while (now := await store.lead(BOB, 60)).name != "c2":
        pass
    assert now.term == 2
    await store.close()


async def test_a_record_of_another_version_is_named_not_fatal(valkey):
    """What cannot be read is left out; the rest is there."""
    store = RedisRollouts(valkey.url)
    await store.write(await store.lead(ANN, 60), Book(), Change((act("start"),), FULL))
    async with Redis.from_url(valkey.url) as raw:
        await raw.hset(ROLLOUTS + "book", "rollout/big", '{"future": 1}')
        await raw.hset(ROLLOUTS + "all", "small-2", '{"id": "small-2", "from_the_future": 1}')
        await raw.zadd(ROLLOUTS + "order", {"small-2": 2})
        await raw.xadd(ROLLOUTS + "acts", {"act": '{"from_the_future": 1}'})
    book = await store.read(-1)
    assert (set(book.rollouts), book.unreadable) == ({"small"}, ("rollout/big",))
    assert await store.rollouts("", 1, "") == Page([], "small-2", ("small-2",))
    assert await store.rollouts("small", 10, "") == Page([FULL], "", ("small-2",))
    with pytest.raises(RolloutNotFound, match="rollout 'small-2' is in state Redis, and cannot be read here"):
        await store.rollout("small-2")
    assert [one.what for one in (await store.acts("", 10, ""))[0]] == ["unreadable", "start"]
    assert [one.what for one in (await store.acts("small-1", 10, ""))[0]] == ["start"]
    await store.close()
