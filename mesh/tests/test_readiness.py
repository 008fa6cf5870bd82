"""Readiness: everybody hears of every change, and a stall is noticed."""

import asyncio

from serin_mesh.readiness import Readiness, State


def states(readiness: Readiness) -> list[State]:
    """States that a watcher hears of."""
    heard: list[State] = []
    readiness.watch(lambda condition: heard.append(condition.state))
    return heard


def test_watchers_hear_now_and_every_change() -> None:
    """The state at the time of asking comes first."""
    readiness = Readiness()
    heard = states(readiness)
    readiness.starting("loading weights", 0.3)
    readiness.ready()
    readiness.draining()
    assert heard == [State.STARTING, State.STARTING, State.READY, State.DRAINING]


def test_a_forgotten_watcher_hears_nothing() -> None:
    """Ending a watch ends it."""
    readiness, heard = Readiness(), []
    forget = readiness.watch(heard.append)
    forget()
    readiness.ready()
    assert len(heard) == 1


def test_draining_is_final() -> None:
    """A startup that finishes late does not call traffic to a service that leaves."""
    readiness = Readiness()
    readiness.draining()
    readiness.ready()
    assert readiness.condition.state is State.DRAINING


def test_a_stall_is_noticed_and_forgiven() -> None:
    """The probe decides while ready; it is not asked before or in a drain."""
    alive = [False]
    readiness = Readiness(probe=lambda: alive[0])
    heard = states(readiness)
    readiness.probe()
    readiness.ready()
    readiness.probe()
    readiness.probe()
    alive[0] = True
    readiness.probe()
    assert heard == [State.STARTING, State.READY, State.STALLED, State.READY]


async def test_waiting_for_a_state() -> None:
    """Several waiters wake, also when the state passes quickly through another."""
    readiness = Readiness()
    waiting = [asyncio.create_task(readiness.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    readiness.starting("more")
    await asyncio.sleep(0)
    readiness.ready()
    await asyncio.gather(*waiting)
