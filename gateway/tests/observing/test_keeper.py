"""Finished requests are remembered, within bounds, off every request's path."""

import asyncio

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.observing.keeper import MAX_WAITING, RecordKeeper
from serin_gateway.observing.record import RequestRecord
from serin_gateway.observing.records import MemoryRecords, RecordsDown
from serin_gateway.observing.retention import LONGEST_S, SHORTEST_S, Retention
from serin_gateway.receipt import Receipt


def receipt(request_id: str = "req-1", tenant: str = "acme", **fields) -> Receipt:
    """Of a request that was answered."""
    return Receipt(request_id, "rest", tenant=tenant, attempts=[AttemptReceipt(lane="a", reason="ok")], **fields)


async def test_a_request_is_found_before_and_after_it_is_written():
    """By its own tenant only."""
    keeper = RecordKeeper(store := MemoryRecords(), 100)
    keeper.keep(receipt(model="small", lane="a"), 7)
    for _ in range(2):
        found = await keeper.find("acme", "req-1")
        assert (found.model, found.session, found.attempts[0].reason) == ("small", 7, "ok")
        assert await keeper.find("other", "req-1") is None
        await keeper.write()
    assert len(await store.find("req-1")) == 1


async def test_two_tenants_may_use_one_identifier():
    """Callers choose identifiers: neither overwrites the other's."""
    keeper = RecordKeeper(MemoryRecords(), 100)
    keeper.keep(receipt(tenant="a", lane="lane-a"), 1)
    keeper.keep(receipt(tenant="b", lane="lane-b"), 2)
    await keeper.write()
    assert [(await keeper.find(tenant, "req-1")).lane for tenant in "ab"] == ["lane-a", "lane-b"]


async def test_what_nobody_asks_about_is_not_kept():
    """Nothing of strangers, nothing of requests that asked no model and went well, nothing at all when it is off."""
    keeper, off = RecordKeeper(store := MemoryRecords(), 100), RecordKeeper(store, 0)
    keeper.keep(receipt(tenant=""), 1)
    keeper.keep(Receipt("req-1", "rest", tenant="acme"), 1)
    keeper.keep(receipt("x" * 129), 1)
    off.keep(receipt(), 1)
    for one in (keeper, off):
        await one.write()
    assert await store.find("req-1") == []


async def test_a_store_that_is_down_costs_records_and_nothing_else():
    """What waits is bounded, what is lost is counted, and what still waits is written once the store is back."""
    keeper = RecordKeeper(store := MemoryRecords(), 10**6)
    store.down = True
    for number in range(MAX_WAITING + 5):
        keeper.keep(receipt(f"req-{number}"), 1)
    await keeper.write()
    assert 5 < keeper.num_dropped < MAX_WAITING
    store.down = False
    await keeper.write()
    assert (await keeper.find("acme", f"req-{MAX_WAITING}")).request_id == f"req-{MAX_WAITING}"


async def test_the_last_ones_are_written_when_it_ends():
    """Nothing that was accepted is lost by an orderly end."""
    keeper = RecordKeeper(store := MemoryRecords(), 100)
    task = asyncio.create_task(keeper.keep_writing())
    await asyncio.sleep(0)
    keeper.keep(receipt(), 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await store.find("req-1")) == 1


def test_a_record_survives_its_text():
    """To JSON and back; members that a newer version wrote are ignored."""
    whole = receipt(model="small", lane="a", reason="LANE_LOST", message="gone", verbs={"admit": 0.5})
    record = RequestRecord.of(whole, 2**64 - 1, 1.5)
    text = record.to_json()
    assert RequestRecord.from_json(text) == record
    assert RequestRecord.from_json(text.replace('{"request_id"', '{"new":1,"request_id"', 1)) == record
    assert "session_key" not in text


def test_busy_gateways_remember_for_a_shorter_time():
    """A day at a request a second; at a thousand a second as long as the bound lasts; never less than a minute."""
    retention, now = Retention(100_000), 0.0
    for _ in range(100):
        now += 10
        ttl = retention.ttl_s(10, now)
    assert ttl == LONGEST_S
    for _ in range(100):
        now += 10
        ttl = retention.ttl_s(10_000, now)
    assert 90 <= ttl <= 110
    for _ in range(100):
        now += 10
        ttl = retention.ttl_s(10**6, now)
    assert ttl == SHORTEST_S


async def test_a_lookup_that_cannot_be_made_says_so():
    """Never "not found" for what is not known."""
    keeper = RecordKeeper(store := MemoryRecords(), 100)
    store.down = True
    for call in (keeper.find("a", "b"), keeper.claim_feedback("a", "b")):
        try:
            await call
        except RecordsDown:
            continue
        raise AssertionError("a store that is down answered")
