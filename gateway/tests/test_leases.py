"""Leases of running requests: taken, renewed, given back."""

import asyncio

import pytest
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import Amount, Limits, Scope
from serin_gateway.limits.memory import MemoryLimiter
from serin_mesh.errors import Reason


def key(limits: Limits) -> list[Scope]:
    """One key with limits."""
    return [Scope("key", "k", limits)]


def nothing() -> Amount:
    """Nothing is used."""
    return Amount()


async def test_without_limits_there_is_no_standing():
    """The lease is there all the same: it is what the request is billed as."""
    lease, standing = await LeaseBook(MemoryLimiter()).take(key(Limits()), Amount(10), nothing)
    assert lease.lease_id
    assert standing is None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(requests_per_minute=1), "1 requests per minute"),
        (Limits(tokens_per_minute=15), "15 tokens per minute"),
        (Limits(concurrent_requests=1), "1 requests at the same time"),
    ],
)
async def test_a_refusal_names_the_limit_and_when_to_come_back(limits, words):
    """RATE_LIMITED with a whole number of seconds, at most a minute."""
    book = LeaseBook(MemoryLimiter())
    await book.take(key(limits), Amount(10), nothing)
    with pytest.raises(RateLimited) as refusal:
        await book.take(key(limits), Amount(10), nothing)
    assert refusal.value.reason is Reason.RATE_LIMITED
    assert words in refusal.value.message
    assert 1 <= int(refusal.value.metadata["retry_after_s"]) <= 60
    assert refusal.value.metadata["scope"] == "key"


async def test_where_nothing_is_left_even_who_wants_nothing_yet_is_told_why():
    """Once more was used than is allowed (a limit was lowered): no request "may use 0", the limit is used up."""
    for limits, value in (
        (Limits(tokens_per_minute=5), "5 tokens per minute"),
        (Limits(tokens_per_day=5), "5 tokens per day"),
    ):
        words = f"limit of {value} is used up already, by earlier requests; try again"
        book = LeaseBook(MemoryLimiter())
        lease, _ = await book.take(key(Limits(tokens_per_minute=100, tokens_per_day=100)), Amount(9), lambda: Amount(9))
        await book.give_back(lease)
        for most in (Amount(), Amount(5)):
            with pytest.raises(RateLimited) as refusal:
                await book.take(key(limits), most, nothing)
            assert (words in refusal.value.message) is (most.tokens == 0)
            assert ("(this request may use up to 5) is reached" in refusal.value.message) is (most.tokens == 5)


async def test_a_request_that_never_fits_is_told_so():
    """Coming back later would not help, and the SDK is told not to."""
    with pytest.raises(RateLimited, match="more than the key's limit of 5") as refusal:
        await LeaseBook(MemoryLimiter()).take(key(Limits(tokens_per_minute=5)), Amount(6), nothing)
    assert refusal.value.metadata["should_retry"] == "false"


async def test_what_was_used_counts_when_it_is_given_back():
    """Usage is asked at the end, and at each renewal."""
    book, limits = LeaseBook(MemoryLimiter()), Limits(tokens_per_minute=100)
    used = 10
    lease, _ = await book.take(key(limits), Amount(90), lambda: Amount(used))
    await book.renew_all()
    used = 40
    await book.give_back(lease)
    await book.take(key(limits), Amount(60), nothing)
    with pytest.raises(RateLimited):
        await book.take(key(limits), Amount(1), nothing)


async def test_a_late_renewal_does_not_revive_a_lease():
    """A lease given back while its renewal is on its way stays ended."""
    limiter, limits = MemoryLimiter(), Limits(concurrent_requests=1)
    book = LeaseBook(limiter)
    lease, _ = await book.take(key(limits), Amount(0), nothing)
    renew, on_its_way, arrive = limiter.renew, asyncio.Event(), asyncio.Event()

    async def late(one):
        on_its_way.set()
        await arrive.wait()
        await renew(one)

    limiter.renew = late
    renewing = asyncio.create_task(book.renew_all())
    await on_its_way.wait()
    await book.give_back(lease)
    arrive.set()
    await renewing
    await book.take(key(limits), Amount(0), nothing)


@pytest.mark.parametrize(
    ("limits", "is_awaited"),
    [
        (Limits(requests_per_minute=10, tokens_per_minute=100), False),
        (Limits(requests_per_minute=1, tokens_per_minute=100), True),  # none is left
        (Limits(requests_per_minute=10, tokens_per_minute=79), True),  # less than half
        (Limits(requests_per_minute=10, tokens_per_minute=100, concurrent_requests=9), True),
        (Limits(requests_per_minute=10, tokens_per_day=10_000), True),
        (Limits(requests_per_minute=10, money_per_month=10_000), True),
    ],
)
async def test_only_what_somebody_may_miss_is_awaited_at_the_end(limits, is_awaited):
    """Callers do not wait for Redis where plenty is left; whatever comes next goes there behind it."""
    limiter, told = MemoryLimiter(), []
    settle, settle_later = limiter.settle, limiter.settle_later
    limiter.settle = lambda *given: told.append("awaited") or settle(*given)
    limiter.settle_later = lambda *given: told.append("later") or settle_later(*given)
    book = LeaseBook(limiter)
    lease, _ = await book.take([Scope("project", "p"), *key(limits)], Amount(40), nothing)
    await book.give_back(lease)
    assert told == ["awaited" if is_awaited else "later"]
