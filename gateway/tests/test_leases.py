"""Leases of running requests: taken, renewed, given back."""

import asyncio

import pytest
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import Limits
from serin_gateway.limits.memory import MemoryLimiter
from serin_mesh.errors import Reason


async def test_subjects_without_limits_are_not_counted():
    """No lease, no standing, no call."""
    assert await LeaseBook(MemoryLimiter()).take("k", Limits(), 10, lambda: 0) == (None, None)


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
    await book.take("k", limits, 10, lambda: 0)
    with pytest.raises(RateLimited) as refusal:
        await book.take("k", limits, 10, lambda: 0)
    assert refusal.value.reason is Reason.RATE_LIMITED
    assert words in refusal.value.message
    assert 1 <= int(refusal.value.metadata["retry_after_s"]) <= 60
    assert refusal.value.standing.limits == limits


async def test_a_request_that_never_fits_is_told_so():
    """Coming back later would not help, and the SDK is told not to."""
    with pytest.raises(RateLimited, match="more than the key's limit of 5") as refusal:
        await LeaseBook(MemoryLimiter()).take("k", Limits(tokens_per_minute=5), 6, lambda: 0)
    assert refusal.value.metadata["should_retry"] == "false"


async def test_what_was_used_counts_when_it_is_given_back():
    """Usage is asked at the end, and at each renewal."""
    book, limits = LeaseBook(MemoryLimiter()), Limits(tokens_per_minute=100)
    used = 10
    lease, _ = await book.take("k", limits, 90, lambda: used)
    await book.renew_all()
    used = 40
    await book.give_back(lease)
    await book.take("k", limits, 60, lambda: 0)
    with pytest.raises(RateLimited):
        await book.take("k", limits, 1, lambda: 0)


async def test_a_late_renewal_does_not_revive_a_lease():
    """A lease given back while its renewal is on its way stays ended."""
    limiter, limits = MemoryLimiter(), Limits(concurrent_requests=1)
    book = LeaseBook(limiter)
    lease, _ = await book.take("k", limits, 0, lambda: 0)
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
    await book.take("k", limits, 0, lambda: 0)
