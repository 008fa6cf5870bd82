"""The log that watchers follow."""

from serin_worker.cache_log import CacheLog


def test_a_watcher_that_fell_behind_needs_a_new_snapshot():
    """Forgotten events are reported as such, never skipped."""
    log = CacheLog(capacity=2)
    for key in (b"1", b"2", b"3"):
        log.stored([key])
    assert log.since(0) is None
    assert [event.keys for event in log.since(1) or ()] == [(b"2",), (b"3",)]
    assert log.since(3) == []
    assert log.since(4) is None


def test_listeners_hear_every_change_until_they_stop():
    """A listener is called after each change that changes something."""
    log, heard = CacheLog(), []
    stop = log.listen(lambda: heard.append(log.snapshot()[0]))
    log.stored([b"1"])
    log.stored([])
    stop()
    log.removed([b"1"])
    assert heard == [1]
