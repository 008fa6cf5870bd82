"""What was loaded is left alone; what comes later is collected."""

import contextlib
import gc
import weakref

import pytest
from serin_mesh.garbage import keep_what_is_loaded, not_collecting


class Ring:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed():
    """Other tests of this process are not concerned."""
    yield
    gc.unfreeze()


def test_what_is_loaded_is_not_looked_through_again():
    """A full collection looks at what came after, and frees it."""
    loaded = [Ring() for _ in range(1000)]
    keep_what_is_loaded()
    assert gc.get_freeze_count() >= len(loaded)
    assert len(gc.get_objects()) < len(loaded)
    later = weakref.ref(Ring())
    gc.collect()
    assert later() is None


@pytest.mark.parametrize("was_collecting", [True, False])
def test_an_import_is_not_interrupted(was_collecting):
    """Whatever happens inside, the collector is afterwards as it was."""
    if not was_collecting:
        gc.disable()
    try:
        states = []
        with contextlib.suppress(ImportError), not_collecting():
            states.append(gc.isenabled())
            raise ImportError
        assert [*states, gc.isenabled()] == [False, was_collecting]
    finally:
        gc.enable()
