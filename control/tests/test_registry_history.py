"""Random announcements, beats, breaks and silences: what must hold of leases at every moment."""

from control_builders import ready, registration
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from serin_control.errors import LeaseSuperseded
from serin_control.instance import State
from serin_control.registry import Registry, Ticket


class LeaseMachine(RuleBasedStateMachine):
    """Six names that come and go."""

    names = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = Registry(lambda: self.now)
        self.tickets: dict[str, Ticket] = {}
        self.heard: dict[str, float] = {}
        self.had_ready = False

    @initialize(name=names)
    def first(self, name: str) -> None:
        """A cluster of one."""
        self.announce(name)
        self.beat(name)

    @rule(name=names)
    def announce(self, name: str) -> None:
        """Announce, or announce again."""
        self.tickets[name] = self.registry.announce(registration(name, port=1000 + ord(name)), 0.0)
        self.heard[name] = self.now

    @rule(name=names)
    def beat(self, name: str) -> None:
        """Beat, if there is a stream."""
        if name in self.tickets:
            try:
                self.registry.beat(self.tickets[name], ready())
            except LeaseSuperseded:
                del self.tickets[name]
            else:
                self.heard[name], self.had_ready = self.now, True

    @rule(name=names)
    def lose(self, name: str) -> None:
        """The stream breaks."""
        if name in self.tickets:
            self.registry.lose(self.tickets.pop(name))
            self.heard[name] = self.now

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.5, 4.0]))
    def wait(self, seconds: float) -> None:
        """Nobody is heard."""
        self.now += seconds
        self.registry.tick()

    @invariant()
    def a_cluster_that_was_ready_never_empties_by_silence(self) -> None:
        """Empty never replaces full."""
        if self.had_ready:
            assert any(held.status.state is State.READY for held in self.registry.instances())

    @invariant()
    def whoever_was_heard_within_a_lease_is_there(self) -> None:
        """Nobody is dropped early."""
        held = {one.registration.instance for one in self.registry.instances()}
        for name, at in self.heard.items():
            if name in self.tickets and self.now - at <= 3.0 and name not in held:
                raise AssertionError(f"{name} was heard {self.now - at} s ago and is gone")

    @invariant()
    def the_silent_minority_is_gone(self) -> None:
        """Only a majority is kept."""
        self.registry.tick()
        ready_ones = [held for held in self.registry.instances() if held.status.state is State.READY]
        lost = [held for held in ready_ones if held.lost]
        silent = [held for held in ready_ones if held.suspect]
        assert not lost or len(silent) * 2 > len(ready_ones)


LeaseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLeases = LeaseMachine.TestCase
