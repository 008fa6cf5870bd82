"""A stored answer comes back exactly, to its own namespace only, or not at all."""

import asyncio
from dataclasses import replace

import pytest
from cache_requests import ASKED
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_cache_svc.answers import AnswerLimits, Answers
from serin_cache_svc.asked import Prompt
from serin_cache_svc.errors import NotDeterministic, StoreDown
from serin_cache_svc.store.memory_store import MemoryAnswerStore
from serin_mesh.breaker import CircuitBreaker
from worker_twin import SECRET


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def __call__(self):
        """The time."""
        return self.now


def make(store=None, secret=SECRET, **limits):
    """Answers over a store."""
    breaker = CircuitBreaker("store", failures=(StoreDown,), budget_s=0.05, rest_s=0.0)
    return Answers(store or MemoryAnswerStore(), breaker, secret, AnswerLimits(**limits))


@settings(max_examples=60)
@given(answer=st.binary(max_size=100))
def test_an_answer_comes_back_exactly(answer):
    """Any bytes survive."""

    async def run():
        answers = make()
        assert await answers.recall(ASKED) is None
        assert await answers.put(ASKED, answer, 0)
        assert await answers.recall(ASKED) == answer

    asyncio.run(run())


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, cache_group="rival"),
        replace(ASKED, cache_salt="x"),
        replace(ASKED, kv_digest="kv2"),
        replace(ASKED, prompt=Prompt((1, 2, 4))),
        replace(ASKED, cache_group=""),
        replace(ASKED, sampling={"temperature": 1, "seed": None}),
    ],
)
async def test_nobody_else_hits_it(other):
    """Another group, salt, KV digest or prompt, nobody, and whoever draws: all miss."""
    answers = make()
    await answers.put(ASKED, b"mine", 0)
    assert await answers.recall(other) is None


async def test_another_secret_hits_nothing():
    """Whoever lacks the mesh secret can neither find nor forge an answer."""
    store = MemoryAnswerStore()
    await make(store).put(ASKED, b"mine", 0)
    stranger = make(store, secret=b"t" * 32)
    assert await stranger.recall(ASKED) is None
    (where,) = store._values
    store._values[where] = (1e12, stranger._seal(ASKED.digest(SECRET), b"forged"))
    assert await make(store).recall(ASKED) is None


async def test_any_damage_is_a_miss():
    """Every flipped byte, every cut and another answer's value under this key: a miss, never wrong text."""
    store = MemoryAnswerStore()
    answers = make(store)
    await answers.put(ASKED, b"the answer", 0)
    (where,) = store._values
    until, good = store._values[where]
    for at in range(len(good)):
        store._values[where] = (until, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert await answers.recall(ASKED) is None
        store._values[where] = (until, good[:at])
        assert await answers.recall(ASKED) is None
    other = replace(ASKED, prompt=Prompt((9,)))
    await answers.put(other, b"another answer", 0)
    store._values[where] = store._values[next(key for key in store._values if key != where)]
    assert await answers.recall(ASKED) is None


async def test_answers_are_forgotten_in_time():
    """The asked time, else the default, and never more than the limit."""
    clock = Clock()
    for asked_s, kept_s in ((5, 5), (0, 60), (9999, 100)):
        clock.now = 0.0
        answers = make(MemoryAnswerStore(clock=clock), default_ttl_s=60, max_ttl_s=100)
        await answers.put(ASKED, b"x", asked_s)
        clock.now = kept_s - 0.1
        assert await answers.recall(ASKED) == b"x"
        clock.now = kept_s + 0.1
        assert await answers.recall(ASKED) is None


async def test_what_cannot_be_kept_is_not():
    """A drawn answer is refused; a large one and nobody's are not stored."""
    answers = make(max_bytes=10)
    with pytest.raises(NotDeterministic):
        await answers.put(replace(ASKED, sampling={"temperature": 1, "seed": None}), b"x", 0)
    assert not await answers.put(ASKED, b"x" * 11, 0)
    assert not await answers.put(replace(ASKED, cache_group=""), b"x", 0)


async def test_a_store_that_is_down_is_no_answer():
    """Recall and purge say so, put says not stored; all is well when it is back."""
    store = MemoryAnswerStore()
    answers = make(store)
    await answers.put(ASKED, b"x", 0)
    store.down = True
    for _ in range(5):
        with pytest.raises(StoreDown):
            await answers.recall(ASKED)
        assert not await answers.put(ASKED, b"y", 0)
    assert not await answers.is_available()
    with pytest.raises(StoreDown):
        await answers.purge("acme")
    store.down = False
    assert await answers.is_available()
    assert await answers.recall(ASKED) == b"x"


async def test_purge_takes_a_group_with_all_its_salts():
    """Whatever the salt and the KV digest; others keep theirs."""
    answers = make()
    mine = [ASKED, replace(ASKED, cache_salt="x"), replace(ASKED, kv_digest="kv2")]
    rival = replace(ASKED, cache_group="rival")
    for asked in (*mine, rival):
        await answers.put(asked, b"x", 0)
    assert await answers.purge("acme") == 3
    assert [await answers.recall(asked) for asked in (*mine, rival)] == [None, None, None, b"x"]
