"""When a worker lets go of its streams."""

import asyncio

from serin_mesh.readiness import Readiness
from serin_worker.handover import Handover


class Streams:
    """Notes why it was told to hand over."""

    def __init__(self) -> None:
        self.causes: list[str] = []
        self.told = asyncio.Event()

    def hand_over(self, error) -> None:
        """All of them."""
        self.causes.append(error.cause)
        self.told.set()


async def test_a_stalled_engines_streams_go_at_once():
    """Each time it stalls, and not while it moves."""
    streams, moving = Streams(), [True]
    readiness = Readiness(probe=lambda: moving[0])
    readiness.watch(Handover(streams.hand_over, stall_s=2.5, drain_s=20).follow)
    readiness.ready()
    for is_moving in (True, False, False, True, False):
        moving[0] = is_moving
        readiness.probe()
    assert streams.causes == ["stalled", "stalled"]


async def test_what_outlives_a_drain_goes_before_it_is_cancelled():
    """Not at its start: running streams get the grace; a second word of the drain changes nothing."""
    streams = Streams()
    readiness = Readiness()
    readiness.watch(Handover(streams.hand_over, stall_s=2.5, drain_s=0.04).follow)
    readiness.ready()
    readiness.draining()
    readiness.draining()
    assert streams.causes == []
    await streams.told.wait()
    await asyncio.sleep(0)
    assert streams.causes == ["draining"]
