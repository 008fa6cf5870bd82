"""Answers under an `Idempotency-Key`: made once for all who ask, at any gateway, whatever becomes of whom."""

import asyncio
import random
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis
from serin_gateway.idempotency import (
    IdempotencyDesk,
    MemoryAnswers,
    RedisAnswers,
    desk,
    following,
    posting,
    redis_store,
    store,
)
from serin_mesh.errors import MeshError, Reason


@pytest.fixture(params=["memory", "redis"])
async def answers(request, valkey_url):
    """A store of answers."""
    if request.param == "memory":
        yield MemoryAnswers()
        return
    async with Redis.from_url(valkey_url) as redis:
        await redis.flushall()
        yield RedisAnswers(redis)


class Seen:
    """A store as one gateway sees it: tests wait until it has looked at an answer."""

    def __init__(self, answers) -> None:
        self._answers = answers
        self._num_looks = 0
        self._looked = asyncio.Condition()

    def __getattr__(self, verb: str):
        return getattr(self._answers, verb)

    async def read(self, name: str, at: int) -> store.Found:
        """Frames behind the first ``at``."""
        found = await self._answers.read(name, at)
        async with self._looked:
            self._num_looks += 1
            self._looked.notify_all()
        return found

    async def until_looked(self, num: int = 1) -> None:
        """Wait for so many looks more."""
        async with self._looked:
            wanted = self._num_looks + num
            await self._looked.wait_for(lambda: self._num_looks >= wanted)


@pytest.fixture
def seen(answers) -> list[Seen]:
    """The store, as each of two gateways sees it."""
    return [Seen(answers), Seen(answers)]


@pytest.fixture
async def desks(seen):
    """Two gateways' desks over one store."""
    both = [IdempotencyDesk(one) for one in seen]
    yield both
    for one in both:
        await one.drain()


class Maker:
    """Makes answers of three frames, one as soon as it is let; counts how many it made."""

    def __init__(self, frames=(b"a", b"b", b"c"), fails: bool = False) -> None:
        self.frames = frames
        self.fails = fails
        self.num_begun = 0
        self.go = asyncio.Semaphore(0)
        self.begun = asyncio.Event()

    async def __call__(self, transcript) -> None:
        """Make one."""
        self.num_begun += 1
        self.begun.set()
        for frame in self.frames:
            await self.go.acquire()
            transcript.add(frame)
        if self.fails:
            raise MeshError(Reason.LANE_LOST, "lost")

    def let(self, count: int = 3) -> "Maker":
        """Let it make so many frames."""
        for _ in range(count):
            self.go.release()
        return self


async def frames_of(
    one: IdempotencyDesk, make, *, subject="key_1", key="k", fingerprint="f", timeout_s=60.0
) -> list[bytes]:
    """A whole answer."""
    return [frame async for frame in one.answer(subject, key, fingerprint, make, timeout_s=timeout_s)]


@contextmanager
def claims_of(monkeypatch, seconds: float):
    """Claims that are made or renewed meanwhile live so long; those of others as ever."""
    with monkeypatch.context() as patched:
        for module in (store, redis_store):
            patched.setattr(module, "CLAIM_S", seconds)
        yield


async def left_s(answers, name: str) -> float:
    """Seconds that a claim lives if it is not renewed."""
    if isinstance(answers, MemoryAnswers):
        return answers._kept[name].ends_at - answers._clock()
    return await answers._redis.pttl(answers._keys(name)[0]) / 1000


async def reason_of(one: IdempotencyDesk, make, **asked) -> Reason:
    """Why an answer is refused."""
    with pytest.raises(MeshError) as refused:
        await frames_of(one, make, **asked)
    return refused.value.reason


async def test_repeats_join_what_runs_and_get_what_is_kept(desks):
    """At the gateway that makes it and at another one, while it is made and later: one answer."""
    make, never = Maker(), Maker()
    first = asyncio.create_task(frames_of(desks[0], make))
    await make.begun.wait()
    elsewhere = desks[1].answer("key_1", "k", "f", never, timeout_s=60)
    joined = asyncio.create_task(frames_of(desks[0], never))
    make.let(1)
    assert await anext(elsewhere) == b"a", "live, not when all is over"
    make.let(2)
    assert await first == await joined == [b"a", b"b", b"c"]
    assert [frame async for frame in elsewhere] == [b"b", b"c"]
    assert await frames_of(desks[0], never) == await frames_of(desks[1], never) == [b"a", b"b", b"c"]
    assert (make.num_begun, never.num_begun) == (1, 0)


async def test_a_repeat_waits_no_longer_than_it_has_time(desks):
    """At the gateway that makes the answer and at another one; what is made goes on, for who asks again."""
    make, never = Maker(), Maker()
    first = asyncio.create_task(frames_of(desks[0], make))
    await make.begun.wait()
    for one in desks:
        assert await reason_of(one, never, timeout_s=0.02) is Reason.DEADLINE_EXCEEDED
    make.let(1)
    while not desks[0]._running[desk._name("key_1", "k")].transcript.frames:  # noqa: ASYNC110 - readers alone are told
        await asyncio.sleep(0)
    shown = desks[0].answer("key_1", "k", "f", never, timeout_s=0.02)
    assert await anext(shown) == b"a"
    with pytest.raises(MeshError, match="still being made") as late:
        await anext(shown)
    assert late.value.reason is Reason.DEADLINE_EXCEEDED
    make.let(2)
    assert await first == [b"a", b"b", b"c"]
    assert await frames_of(desks[1], never) == [b"a", b"b", b"c"]
    assert (make.num_begun, never.num_begun) == (1, 0)


async def test_whoever_makes_the_answer_sees_to_its_own_time(desks):
    """The desk does not end it: its maker says what became of it, and accounts for it, in its own words."""
    assert await frames_of(desks[0], Maker().let(), timeout_s=0.0) == [b"a", b"b", b"c"]


async def test_a_key_is_for_one_request_of_one_caller(desks):
    """Asked for something else it is refused, at both gateways; with another caller it is another key."""
    assert await frames_of(desks[0], Maker().let()) == [b"a", b"b", b"c"]
    for one in desks:
        assert await reason_of(one, Maker(), fingerprint="other") is Reason.IDEMPOTENCY_CONFLICT
    other = Maker((b"x",)).let()
    assert await frames_of(desks[1], other, subject="key_2") == [b"x"]
    running = Maker()
    first = asyncio.create_task(frames_of(desks[0], running, key="k2"))
    await running.begun.wait()
    for one in desks:
        assert await reason_of(one, Maker(), key="k2", fingerprint="other") is Reason.IDEMPOTENCY_CONFLICT
    running.let()
    await first


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "a\n"])
async def test_what_is_no_key_is_refused(desks, key):
    """Before anything is made."""
    make = Maker()
    assert await reason_of(desks[0], make, key=key) is Reason.PARAMETER_INVALID
    assert make.num_begun == 0


async def test_a_failed_answer_is_made_again(desks):
    """Whoever follows hears of the failure; whoever asks then gets a new answer."""
    failing = Maker(fails=True)
    first = asyncio.create_task(reason_of(desks[0], failing))
    await failing.begun.wait()
    joined = asyncio.create_task(reason_of(desks[0], Maker()))
    failing.let()
    assert (await first, await joined) == (Reason.LANE_LOST, Reason.LANE_LOST)
    for one in desks:
        again = Maker((b"x",)).let()
        assert await frames_of(one, again, key="k") == [b"x"]
    assert again.num_begun == 0


async def test_a_failure_elsewhere_is_told_once_frames_were_seen(desks):
    """A repeat at another gateway that has seen half of an answer is not given the half of another one."""
    failing = Maker(fails=True)
    first = asyncio.create_task(reason_of(desks[0], failing))
    await failing.begun.wait()
    elsewhere = desks[1].answer("key_1", "k", "f", Maker(), timeout_s=60)
    failing.let(2)
    assert await anext(elsewhere) in (b"a", b"ab")
    failing.let(1)
    with pytest.raises(MeshError) as refused:
        async for _ in elsewhere:
            pass
    assert refused.value.reason is Reason.UPSTREAM_UNAVAILABLE
    await first


async def test_the_answer_goes_on_when_its_caller_leaves(desks):
    """What was begun is made to its end, and kept."""
    make = Maker()
    first = asyncio.create_task(frames_of(desks[0], make))
    await make.begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    make.let()
    assert await frames_of(desks[1], Maker()) == [b"a", b"b", b"c"]
    assert make.num_begun == 1


async def test_a_gateway_that_dies_does_not_bar_its_keys(answers, desks, monkeypatch):
    """Its claim lapses; a repeat that waits elsewhere makes the answer, once."""
    name = desk._name("key_1", "k")
    with claims_of(monkeypatch, 0.2):
        assert (await answers.claim(name, "f", "dead")).state is store.State.MINE
    make = Maker().let()
    assert await frames_of(desks[0], make) == [b"a", b"b", b"c"]
    assert await answers.renew(name, "dead", [b"late"], 0) is False
    assert await frames_of(desks[1], Maker()) == [b"a", b"b", b"c"]


async def test_nothing_is_shown_of_a_dead_gateways_answer(answers, desks, monkeypatch):
    """It had posted half of it: a repeat sees nothing of that, and gets a whole new answer once the claim lapses."""
    name = desk._name("key_1", "k")
    await answers.claim(name, "f", "dead")
    with claims_of(monkeypatch, 0.5):
        await answers.renew(name, "dead", [b"old", b"older"], 0)
    make = Maker().let()
    assert await asyncio.gather(frames_of(desks[0], make), frames_of(desks[1], make)) == [[b"a", b"b", b"c"]] * 2
    assert make.num_begun == 1


@pytest.mark.parametrize("sign", ["frame", "renewal", "end"])
async def test_a_sign_of_life_shows_what_was_held(answers, seen, desks, sign):
    """A further frame, a renewal of the claim, or the end."""
    name = desk._name("key_1", "k")
    await answers.claim(name, "f", "alive")
    await answers.renew(name, "alive", [b"a"], 0)
    shown = asyncio.ensure_future(anext(joined := desks[0].answer("key_1", "k", "f", Maker(), timeout_s=60)))
    await seen[0].until_looked(3)
    assert not shown.done()
    if sign == "end":
        await answers.finish(name, "alive", store.State.KEPT)
    else:
        await answers.renew(name, "alive", [b"b"] if sign == "frame" else [], 1)
    assert await shown == b"a"
    await answers.finish(name, "alive", store.State.KEPT)
    assert [frame async for frame in joined] == ([b"b"] if sign == "frame" else [])


async def test_halves_of_two_answers_are_never_joined(answers, seen, desks):
    """Between two looks an answer was lost, and another one is further: who saw something of the first is told so."""
    name = desk._name("key_1", "k")
    await answers.claim(name, "f", "first")
    await answers.renew(name, "first", [b"a"], 0)
    seeing, blind = (desks[n].answer("key_1", "k", "f", Maker(), timeout_s=60) for n in (0, 1))
    saw = asyncio.ensure_future(anext(seeing))
    await seen[0].until_looked()
    await answers.renew(name, "first", [b"b"], 1)
    assert await saw == b"a"
    assert await anext(seeing) == b"b"
    waits = asyncio.ensure_future(anext(blind))
    await seen[1].until_looked()
    await answers.finish(name, "first", store.State.GONE)
    await answers.claim(name, "f", "second")
    await answers.renew(name, "second", [b"x", b"y", b"z"], 0)
    with pytest.raises(MeshError) as lost:
        await anext(seeing)
    assert lost.value.reason is Reason.UPSTREAM_UNAVAILABLE
    await seen[1].until_looked(2)
    await answers.finish(name, "second", store.State.KEPT)
    assert [await waits, *[frame async for frame in blind]] == [b"x", b"y", b"z"]
    assert await reason_of(desks[0], Maker(), fingerprint="other") is Reason.IDEMPOTENCY_CONFLICT


async def test_a_gateway_that_was_held_up_takes_its_claim_again(answers, desks):
    """Nobody else had begun: its answer is kept whole. Somebody had: theirs is, and its own callers get its own."""
    for key, is_taken in (("free", False), ("taken", True)):
        name, make = desk._name("key_1", key), Maker()
        first = asyncio.create_task(frames_of(desks[0], make, key=key))
        make.let(1)
        while not (await answers.read(name, 0)).frames:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.01)
        claimed = desks[0]._running[name].transcript.account
        await answers.finish(name, claimed, store.State.GONE)  # as if its claim had lapsed
        if is_taken:
            assert await frames_of(desks[1], Maker((b"x",)).let(), key=key) == [b"x"]
        make.let(2)
        assert await first == [b"a", b"b", b"c"]
        await asyncio.gather(*(running.task for running in desks[0]._running.values()))
        assert await frames_of(desks[1], Maker(), key=key) == ([b"x"] if is_taken else [b"a", b"b", b"c"])


class Mortal:
    """A gateway's way to the store, until it dies: then nothing it says arrives any more."""

    def __init__(self, answers) -> None:
        self.answers = answers
        self.desk = IdempotencyDesk(self)
        self.is_dead = False
        self.calling = asyncio.Lock()
        self.buried = asyncio.Event()

    def __getattr__(self, verb: str):
        async def call(*arguments, **options):
            async with self.calling:
                if not self.is_dead:
                    return await getattr(self.answers, verb)(*arguments, **options)
            await self.buried.wait()
            raise store.AnswersDown("this gateway is dead")

        return call

    async def die(self) -> None:
        """What is on its way still arrives; nothing after it does."""
        async with self.calling:
            self.is_dead = True

    async def bury(self) -> None:
        """End what hangs."""
        self.buried.set()
        await self.desk.drain()


async def test_random_deaths_show_no_one_what_is_dead(answers, monkeypatch):
    """Gateways die while answers are made and ended: whoever asks a living one then gets all of one that is whole."""
    for module in (store, redis_store, posting):
        monkeypatch.setattr(module, "CLAIM_S", 3.0)
    monkeypatch.setattr(posting, "POST_EVERY_S", 0.05)
    monkeypatch.setattr(posting, "LAST_POSTS", 1)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    makings: list[Mortal] = []

    def maker(gateway: Mortal, length: int):
        async def make(transcript) -> None:
            number = len(makings)
            makings.append(gateway)
            for at in range(length):
                await asyncio.sleep(rng.random() * 0.1)
                transcript.add(b"%d/%d/%d" % (number, at, length))

        return make

    async def life(key: str) -> None:
        dead: set[int] = set()
        for _ in range(2):
            victim = Mortal(answers)
            length = rng.randrange(1, 9)
            first = asyncio.create_task(frames_of(victim.desk, maker(victim, length), key=key))
            await asyncio.sleep(rng.random() * 0.6)
            await victim.die()
            was_kept = (await answers.read(desk._name("key_1", key), 0)).state is store.State.KEPT
            first.cancel()
            dead |= set() if was_kept else {number for number, made_by in enumerate(makings) if made_by is victim}
            victims.append(victim)
            await asyncio.sleep(rng.random() * 0.8)
        crowd = []
        for _ in range(3):
            gateway = rng.choice(living)
            crowd.append(frames_of(gateway.desk, maker(gateway, rng.randrange(1, 9)), key=key))
        async with asyncio.timeout(60):
            for frames in await asyncio.gather(*crowd):
                numbers = {int(frame.split(b"/")[0]) for frame in frames}
                assert len(numbers) == 1, f"seed {seed}: {frames}"
                assert not numbers & dead, f"seed {seed}: {frames} of {dead}"
                assert [int(frame.split(b"/")[1]) for frame in frames] == list(range(int(frames[0].split(b"/")[2])))

    living, victims = [Mortal(answers) for _ in range(2)], []
    await asyncio.gather(*(life(f"k{number}") for number in range(12)))
    for gateway in (*living, *victims):
        await gateway.bury()


async def test_a_claim_is_kept_while_nothing_is_made(answers, desks, monkeypatch):
    """Each beat has it live anew, so an answer that takes longer than a claim lives is not made twice."""
    monkeypatch.setattr(posting, "BEAT_S", 0.05)
    name, make, never = desk._name("key_1", "k"), Maker(), Maker()
    with claims_of(monkeypatch, 100):
        first = asyncio.create_task(frames_of(desks[0], make))
        await make.begun.wait()
    elsewhere = asyncio.create_task(frames_of(desks[1], never))
    with claims_of(monkeypatch, 1000):
        renewed = (await answers.read(name, 0)).num_renewals + 2
        while (await answers.read(name, 0)).num_renewals < renewed:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.01)
        assert await left_s(answers, name) > 100
    make.let()
    assert await first == await elsewhere
    assert never.num_begun == 0


async def test_a_posting_that_comes_twice_does_no_harm(answers):
    """Frames go where they belong."""
    await answers.claim("n", "f", "me")
    for _ in range(2):
        assert await answers.renew("n", "me", [b"a", b"b"], 0)
    assert await answers.renew("n", "me", [b"c"] * 1200, 2)
    assert (await answers.read("n", 0)).frames == [b"a", b"b", *[b"c"] * 1200]
    assert (await answers.read("n", 1201)).frames == [b"c"]
    await answers.finish("n", "somebody else", store.State.GONE)
    await answers.finish("n", "me", store.State.KEPT)
    assert (await answers.claim("n", "f", "other")).state is store.State.KEPT
    await answers.claim("brief", "f", "me")
    await answers.finish("brief", "me", store.State.KEPT, ttl_s=0.05)
    while (claim := await answers.claim("brief", "g", "other")).state is store.State.KEPT:  # noqa: ASYNC110 - a store tells nobody
        await asyncio.sleep(0.01)
    assert claim.state is store.State.MINE


async def test_a_long_answer_is_delivered_and_not_kept(desks, monkeypatch):
    """A repeat is told, and not answered anew: that would be paid twice."""
    for module in (posting, following):
        monkeypatch.setattr(module, "MAX_KEPT_BYTES", 10)
    long = Maker((b"x" * 6,) * 3).let()
    assert await frames_of(desks[0], long) == [b"x" * 6] * 3
    await asyncio.gather(*(running.task for running in desks[0]._running.values()))
    for one in desks:
        never = Maker()
        assert await reason_of(one, never) is Reason.IDEMPOTENCY_CONFLICT
        assert never.num_begun == 0


async def test_without_the_store_nothing_is_promised():
    """Whether a key was used cannot be known: refused, and the caller may try again."""
    kept = MemoryAnswers()
    one, make = IdempotencyDesk(kept), Maker().let(9)
    kept.down = True
    assert await reason_of(one, make) is Reason.NOT_READY
    assert make.num_begun == 0
    kept.down = False
    assert await frames_of(one, make) == [b"a", b"b", b"c"]
    await one.drain()


async def test_a_store_that_is_away_for_a_moment_gets_all(monkeypatch):
    """It fails while the answer is made, and is back at the end: the answer is kept whole."""
    kept = MemoryAnswers()
    one, make = IdempotencyDesk(kept), Maker()
    first = asyncio.create_task(frames_of(one, make))
    await make.begun.wait()
    kept.down = True
    make.let()
    assert await first == [b"a", b"b", b"c"]
    await asyncio.sleep(0.3)
    kept.down = False
    await one._running[desk._name("key_1", "k")].task
    assert await frames_of(IdempotencyDesk(kept), Maker()) == [b"a", b"b", b"c"]


async def test_a_drain_waits_and_then_ends(answers):
    """What ends within the grace is kept; the rest is made again by whoever asks."""
    one, quick, slow = IdempotencyDesk(answers), Maker(), Maker()
    first = asyncio.create_task(frames_of(one, quick, key="quick"))
    second = asyncio.create_task(reason_of(one, slow, key="slow"))
    await quick.begun.wait()
    await slow.begun.wait()
    one.begin_drain(2.0)
    quick.let()
    await one.drain()
    assert await first == [b"a", b"b", b"c"]
    assert await second is Reason.NOT_READY
    other = IdempotencyDesk(answers)
    assert await frames_of(other, Maker(), key="quick") == [b"a", b"b", b"c"]
    assert await frames_of(other, Maker((b"x",)).let(), key="slow") == [b"x"]
    await other.drain()


async def test_a_random_crowd_pays_once(answers, desks):
    """Many callers of few keys at two gateways, some leave, some answers fail: each key is paid for once."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    well_made: dict[str, int] = {}

    def maker(key: str):
        async def make(transcript) -> None:
            for _ in range(rng.randrange(1, 4)):
                await asyncio.sleep(rng.random() * 0.02)
                transcript.add(key.encode())
            if rng.random() < 0.3:
                raise MeshError(Reason.LANE_LOST, "lost")
            well_made[key] = well_made.get(key, 0) + 1

        return make

    async def caller() -> None:
        await asyncio.sleep(rng.random())
        key = f"k{rng.randrange(12)}"
        asking = asyncio.create_task(frames_of(rng.choice(desks), maker(key), key=key))
        if rng.random() < 0.2:
            await asyncio.sleep(rng.random() * 0.03)
            asking.cancel()
        (outcome,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(outcome, list):
            assert outcome
            assert set(outcome) == {key.encode()}
        else:
            assert isinstance(outcome, (MeshError, asyncio.CancelledError)), outcome

    await asyncio.gather(*(caller() for _ in range(150)))
    for key in well_made:
        await frames_of(desks[0], Maker(), key=key)
    assert set(well_made.values()) == {1}, f"seed {seed}: {well_made}"
