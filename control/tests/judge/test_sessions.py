"""Which sessions were seen: never forgotten while it matters, hardly ever mistaken."""

import json

from serin_control.judge.sessions import MAX_SESSIONS, SeenSessions


def test_what_was_added_is_known():
    """And next to nothing else, up to what it is made for."""
    seen = SeenSessions()
    for session in range(MAX_SESSIONS):
        seen.add(session, 0.0)
    assert all(seen.ever(session) for session in range(MAX_SESSIONS))
    mistaken = sum(seen.ever(session) for session in range(10**9, 10**9 + 10_000))
    assert mistaken < 1000


def test_random_and_neighbouring_numbers_are_told_apart():
    """Sessions are opaque numbers of 64 bits, with whatever pattern."""
    seen = SeenSessions()
    numbers = [number << 32 for number in range(1000)] + [2**63 + number for number in range(1000)]
    mistaken = 0
    for number in numbers:
        mistaken += seen.ever(number)
        seen.add(number, 0.0)
    assert mistaken <= 2


def test_generations_age():
    """What is old may count again, and is still known to be old; later it is forgotten."""
    seen = SeenSessions(keep_s=100.0)
    seen.add(1, 0.0)
    assert seen.recently(1, 50.0)
    seen.add(2, 150.0)
    assert (seen.recently(1, 150.0), seen.ever(1), seen.recently(2, 150.0)) == (False, True, True)
    seen.add(3, 300.0)
    assert not seen.ever(1)


def test_without_age_two_generations_count():
    """A full generation makes room and is remembered."""
    seen = SeenSessions()
    for session in range(MAX_SESSIONS + 10):
        seen.add(session, 0.0)
    assert seen.recently(0, 0.0)


def test_dumped_and_loaded_it_is_the_same():
    """Through JSON, in few bytes while few are known."""
    seen = SeenSessions(50.0)
    for session in range(100):
        seen.add(session, float(session))
    text = json.dumps(seen.dump())
    again = SeenSessions.load(50.0, json.loads(text))
    assert [again.recently(s, 99.0) for s in range(200)] == [seen.recently(s, 99.0) for s in range(200)]
    assert len(text) < 3000
