"""Who is calling, also while the key store is away."""

import asyncio

import pytest
from serin_gateway.keys import KeyStoreDown, MemoryKeyStore, Role, mint_key
from serin_gateway.keys import authenticator as module
from serin_gateway.keys.authenticator import COPY_S, FRESH_S, KEPT_S, Authenticator
from serin_mesh.errors import MeshError, Reason

SECRET = b"s" * 32


class Setting:
    """An authenticator on a store in memory, with a clock of its own."""

    def __init__(self):
        self.now = 1000.0
        self.store = MemoryKeyStore()
        self.authenticator = Authenticator(self.store, SECRET, clock=lambda: self.now)

    async def mint(self, **options):
        """A new key and its record."""
        key, record = mint_key(SECRET, role=Role.APP, **options)
        await self.store.create(record)
        return key, record

    async def reason(self, key):
        """Why a key is refused."""
        with pytest.raises(MeshError) as refusal:
            await self.authenticator.identify(key)
        return refusal.value.reason


@pytest.fixture
def setting():
    """A fresh one."""
    return Setting()


async def test_a_key_names_its_caller(setting):
    """Tenant, role and public name."""
    key, record = await setting.mint(tenant="acme")
    caller = await setting.authenticator.identify(key)
    assert (caller.key_id, caller.tenant, caller.role) == (record.key_id, "acme", Role.APP)


@pytest.mark.parametrize("key", ["sk-serin-" + "x" * 40, "x", "\ud800", "k" * 10_000])
async def test_wrong_keys_are_invalid(setting, key):
    """Whatever they look like."""
    assert await setting.reason(key) is Reason.KEY_INVALID


async def test_no_key_is_missing(setting):
    """Neither None nor nothing is a wrong key."""
    assert await setting.reason(None) is Reason.KEY_MISSING
    assert await setting.reason("") is Reason.KEY_MISSING


async def test_a_revocation_takes_effect_within_the_fresh_time(setting):
    """Believed without asking until then, refused afterwards; an expired key likewise."""
    key, record = await setting.mint()
    await setting.authenticator.identify(key)
    await setting.store.revoke(record.key_id)
    await setting.authenticator.identify(key)
    setting.now += FRESH_S
    assert await setting.reason(key) is Reason.KEY_INVALID
    expired, _ = await setting.mint(lifetime_s=-1)
    assert await setting.reason(expired) is Reason.KEY_INVALID


async def test_known_keys_go_on_for_five_minutes_without_the_store(setting):
    """From the local copy; then, and for unknown keys at once, it is unknown who calls: never "wrong key"."""
    key, _ = await setting.mint()
    await setting.authenticator.identify(key)
    setting.store.down = True
    setting.now += COPY_S - 1
    await setting.authenticator.identify(key)
    assert await setting.reason("sk-serin-unknown") is Reason.AUTH_UNAVAILABLE
    setting.now += 2
    assert await setting.reason(key) is Reason.AUTH_UNAVAILABLE
    setting.store.down = False
    await setting.authenticator.identify(key)


async def test_a_slow_store_is_waited_for_by_strangers_only(setting, monkeypatch):
    """A key that was confirmed goes on by its copy, which the late answer then confirms; a new one is not refused."""
    known, _ = await setting.mint()
    fresh, record = await setting.mint()
    await setting.authenticator.identify(known)
    setting.now += FRESH_S
    answers = asyncio.Event()
    look_up = setting.store.lookup

    async def slowly(digest):
        await answers.wait()
        return await look_up(digest)

    monkeypatch.setattr(setting.store, "lookup", slowly)
    stranger = asyncio.create_task(setting.authenticator.identify(fresh))
    await setting.authenticator.identify(known)
    assert not stranger.done()
    answers.set()
    assert (await stranger).key_id == record.key_id
    setting.store.down = True
    setting.now += COPY_S - FRESH_S / 2  # counted from the late answer; the one before is older than a copy may be
    await setting.authenticator.identify(known)


async def test_how_long_the_store_is_silent_is_known(setting):
    """From the first question in vain until an answer, whoever asks, also where no key is known to ask about."""
    key, _ = await setting.mint()
    assert setting.authenticator.stale_s == 0
    setting.store.down = True
    assert await setting.reason(key) is Reason.AUTH_UNAVAILABLE
    setting.now += 60
    await setting.authenticator.refresh()
    assert setting.authenticator.stale_s == 60
    setting.store.down = False
    await setting.authenticator.refresh()
    assert setting.authenticator.stale_s == 0
    await setting.authenticator.identify(key)
    setting.store.down = True
    setting.now += FRESH_S
    await setting.authenticator.identify(key)
    setting.now += 10
    assert setting.authenticator.stale_s == 10


async def test_confirming_keeps_lately_used_keys_known(setting):
    """Keys used within the hour are confirmed in the background; others are forgotten, revoked ones refused."""
    used, _ = await setting.mint()
    idle, _ = await setting.mint()
    revoked, record = await setting.mint()
    for key in (used, idle, revoked):
        await setting.authenticator.identify(key)
    await setting.store.revoke(record.key_id)
    setting.now += KEPT_S - 1
    await setting.authenticator.identify(used)
    setting.now += 2
    await setting.authenticator.refresh()
    setting.store.down = True
    setting.now += COPY_S - 1
    await setting.authenticator.identify(used)
    assert await setting.reason(idle) is Reason.AUTH_UNAVAILABLE
    assert await setting.reason(revoked) is Reason.AUTH_UNAVAILABLE


async def test_copies_are_bounded(setting, monkeypatch):
    """The oldest copy goes when there are too many."""
    monkeypatch.setattr(module, "MAX_COPIES", 2)
    keys = [(await setting.mint())[0] for _ in range(3)]
    for key in keys:
        await setting.authenticator.identify(key)
    setting.store.down = True
    assert await setting.reason(keys[0]) is Reason.AUTH_UNAVAILABLE
    setting.now += FRESH_S
    await setting.authenticator.identify(keys[2])


async def test_many_at_once_ask_the_store_once(setting):
    """A burst of requests with one key is one look-up."""
    key, _ = await setting.mint()
    asked = 0
    lookup, gate = setting.store.lookup, asyncio.Event()

    async def counted(digest):
        nonlocal asked
        asked += 1
        await gate.wait()
        return await lookup(digest)

    setting.store.lookup = counted
    callers = [asyncio.create_task(setting.authenticator.identify(key)) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    callers[0].cancel()  # who began the look-up may leave without harming the others
    gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert asked == 1
    assert len({caller.key_id for caller in results[1:]}) == 1


async def test_a_store_that_fails_fails_everybody_who_waits(setting):
    """And the next one asks again."""
    key, _ = await setting.mint()
    lookup = setting.store.lookup

    async def down(digest):
        raise KeyStoreDown("no")

    setting.store.lookup = down
    assert await setting.reason(key) is Reason.AUTH_UNAVAILABLE
    setting.store.lookup = lookup
    await setting.authenticator.identify(key)
