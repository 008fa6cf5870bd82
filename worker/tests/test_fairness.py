"""The virtual token counter."""

from serin_worker.fairness import TokenCounter


def test_weights_stretch_the_share():
    """A tenant of twice the weight may use twice the tokens for the same virtual time."""
    counter = TokenCounter()
    counter.enter("a")
    counter.enter("b")
    counter.charge("a", 100, 2.0)
    counter.charge("b", 50, 1.0)
    assert counter.served("a") == counter.served("b")


def test_idleness_saves_nothing_up():
    """A tenant that comes back starts level with the least served busy one, not with its old credit."""
    counter = TokenCounter()
    counter.enter("busy")
    counter.charge("busy", 1_000, 1.0)
    counter.enter("late")
    assert counter.served("late") == 1_000


def test_a_debt_is_not_forgotten_by_leaving():
    """A tenant that used more than the others and leaves for a moment comes back with what it used."""
    counter = TokenCounter()
    counter.enter("a")
    counter.enter("b")
    counter.charge("a", 500, 1.0)
    counter.leave("a")
    counter.enter("a")
    assert counter.served("a") == 500


def test_memory_is_bounded_by_the_busy_ones():
    """Tenants that are owed nothing and owe nothing are forgotten."""
    counter = TokenCounter()
    counter.enter("busy")
    counter.charge("busy", 10_000, 1.0)
    for number in range(100):
        counter.enter(f"t{number}")
        counter.leave(f"t{number}")
    assert len(counter._served) == 1


def test_who_runs_nothing_and_had_least_is_owed_a_place():
    """A tenant that comes to a busy engine is owed a place; not while it runs, nor when it had more than others."""
    counter = TokenCounter()
    counter.enter("many")
    counter.begin("many")
    counter.charge("many", 100, 1.0)
    counter.enter("few")
    assert counter.is_owed("few")
    assert not counter.is_owed("many")
    counter.begin("few")
    assert not counter.is_owed("few")
    counter.charge("few", 500, 1.0)
    counter.cease("few")
    assert not counter.is_owed("few")
