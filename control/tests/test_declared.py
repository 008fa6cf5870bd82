"""The configuration in force: replaced whole or not at all, from file, store or another control plane."""

import pytest
from serin_control.alarms import Alarms
from serin_control.config import ConfigInvalid
from serin_control.declared import Declared, InitialFile
from serin_control.errors import ConfigConflict, StoreDown
from serin_control.store import MemoryStore, SavedConfig

ONE = "models: {one: {path: x}}"
TWO = "models: {two: {path: y}}"
BAD = "models: {one: {pth: x}}"


class Faulty(MemoryStore):
    """A store that can be down."""

    down = False

    def _look(self) -> None:
        if self.down:
            raise StoreDown("state Redis: away")

    async def read_config(self):
        """Unless down."""
        self._look()
        return await super().read_config()

    async def write_config(self, config):
        """Unless down."""
        self._look()
        await super().write_config(config)


def file(text: str) -> InitialFile:
    """The file of a start."""
    return InitialFile("serin.yaml", text)


def names(declared: Declared) -> list[str]:
    """Models in force."""
    return list(declared.current.value.config.models)


@pytest.fixture
def store() -> Faulty:
    """A store that works until told otherwise."""
    return Faulty()


@pytest.fixture
def alarms() -> Alarms:
    """No alarm stands."""
    return Alarms()


async def test_a_file_is_taken_over_once(store, alarms):
    """What was applied later outlives restarts with the same file; a changed file is taken over."""
    first = Declared(store, alarms, file(ONE))
    await first.start()
    assert (names(first), first.current.value.saved.revision) == (["one"], 1)
    await first.apply(TWO)
    again = Declared(store, alarms, file(ONE))
    await again.start()
    assert (names(again), again.current.value.saved.revision) == (["two"], 2)
    changed = Declared(store, alarms, file(ONE + "\n# edited"))
    await changed.start()
    assert (names(changed), changed.current.value.saved.revision) == (["one"], 3)


async def test_a_bad_file_at_the_first_start_is_refused(store, alarms):
    """There is nothing better to serve."""
    with pytest.raises(ConfigInvalid, match=r"serin\.yaml:1: models\.one\.pth: unknown key"):
        await Declared(store, alarms, file(BAD)).start()


async def test_a_bad_file_at_a_restart_leaves_the_old_one_serving(store, alarms):
    """The stored configuration serves on and an alarm stands until a good one comes."""
    await Declared(store, alarms, file(ONE)).start()
    declared = Declared(store, alarms, file(BAD))
    await declared.start()
    assert names(declared) == ["one"]
    assert "configuration refused, the old one serves on: serin.yaml:1: models.one.pth" in alarms.sentences()[0]
    await declared.apply(TWO)
    assert alarms.sentences() == ()


@pytest.mark.parametrize("text", [BAD, "", "models: {}", "models: [", "\x00"])
async def test_bad_and_empty_configurations_are_rejected_whole(store, alarms, text):
    """The old one serves on, nothing was stored, an alarm stands."""
    declared = Declared(store, alarms, file(ONE))
    await declared.start()
    with pytest.raises(ConfigInvalid):
        await declared.apply(text)
    assert names(declared) == ["one"]
    assert (await store.read_config()).revision == 1
    assert len(alarms.sentences()) == 1


async def test_revisions_are_compared(store, alarms):
    """Who read an older revision must read again; 0 means whatever is in force."""
    declared = Declared(store, alarms, file(ONE))
    await declared.start()
    assert await declared.apply(TWO, expected_revision=1) == ["+ models.two.path: y", "- models.one.path: x"]
    with pytest.raises(ConfigConflict, match="revision 2 is in force, not 1"):
        await declared.apply(ONE, expected_revision=1)
    assert await declared.apply(TWO, expected_revision=2) == [], "nothing changed"
    assert declared.current.value.saved.revision == 2
    await declared.apply(ONE)
    assert names(declared) == ["one"]


async def test_another_control_planes_change_is_taken_over(store, alarms):
    """Two that share a store serve the same; a race is a conflict for the later."""
    a, b = Declared(store, alarms, file(ONE)), Declared(store, alarms, file(ONE))
    await a.start()
    await b.start()
    await a.apply(TWO)
    with pytest.raises(ConfigConflict):
        await b.apply(ONE + "\n#")
    await b.refresh()
    assert names(b) == ["two"]


async def test_without_a_store_the_file_serves_and_changes_are_refused(store, alarms):
    """What cannot be made durable is not applied; when the store is back, its newer state wins over the same file."""
    await Declared(store, alarms, file(ONE)).start()
    await Declared(store, alarms).apply(TWO)
    store.down = True
    declared = Declared(store, alarms, file(ONE))
    await declared.start()
    assert names(declared) == ["one"]
    with pytest.raises(StoreDown):
        await declared.apply(TWO)
    with pytest.raises(StoreDown):
        await declared.refresh()
    store.down = False
    await declared.refresh()
    assert names(declared) == ["two"]


async def test_nothing_declared_is_an_alarm(store, alarms):
    """No file, none applied: said, until one is."""
    declared = Declared(store, alarms)
    await declared.start()
    assert declared.current.value is None
    assert "nothing is declared" in alarms.sentences()[0]
    assert await declared.apply(ONE) == ["+ models.one.path: x"]
    assert alarms.sentences() == ()


async def test_a_stored_configuration_that_cannot_be_read_is_an_alarm(store, alarms):
    """Written by a later version: what serves, serves on."""
    declared = Declared(store, alarms, file(ONE))
    await declared.start()
    await store.write_config(SavedConfig(2, "models: {one: {path: x, from_the_future: 1}}"))
    await declared.refresh()
    assert names(declared) == ["one"]
    assert "stored revision 2:1: models.one.from_the_future: unknown key" in alarms.sentences()[0]
