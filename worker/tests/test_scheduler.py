"""Who comes in when blocks are short, at whose cost, and what is counted then."""

from serin_worker.blocks import BlockPool
from serin_worker.limits import Limits
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.scheduler import Scheduler
from serin_worker.sequence import Group

GREEDY = Sampling(temperature=0.0)
BLOCK_SIZE = 16


class Driven:
    """A scheduler over 60 blocks, driven without an engine: whatever is drawn is the token 5."""

    def __init__(self, max_num_sequences: int = 64, max_num_tokens: int = 4096) -> None:
        self.scheduler = Scheduler(BlockPool(60), Limits(BLOCK_SIZE, max_num_sequences, max_num_tokens))
        self.groups: dict[str, Group] = {}

    def add(self, name: str, num_tokens: int, **changes) -> None:
        """Queue a request of so many equal tokens."""
        self.groups[name] = Group(GenerationRequest(name, [1] * num_tokens, GREEDY, Stopping(), **changes))
        self.scheduler.add(self.groups[name])

    def end(self, name: str) -> None:
        """The request is over."""
        self.scheduler.remove(self.groups.pop(name))

    def step(self) -> dict[str, int]:
        """Tokens computed in a step, by request, in the plan's order."""
        plan = self.scheduler.schedule()
        self.scheduler.commit(plan)
        for work in plan.work:
            work.sequence.group.is_started = True
            for sequence in work.drawn:
                sequence.take(5)
        return {work.sequence.group.request_id: work.num_tokens for work in plan.work}

    @property
    def num_preemptions(self) -> int:
        """Of all that go on."""
        return sum(group.num_preemptions for group in self.groups.values())


def test_nobody_is_preempted_for_an_urgent_one_that_does_not_fit_even_then():
    """25 blocks are asked for, 15 are free, and the only less urgent one holds 4: it goes on."""
    driven = Driven()
    driven.add("a", 50, priority=0)
    driven.add("b", 640, priority=5)
    driven.step()
    driven.add("c", 400, priority=5)
    for _ in range(20):
        assert driven.step() == {"b": 1, "a": 1}
    driven.end("b")
    assert driven.step() == {"c": 400, "a": 1}
    assert driven.num_preemptions == 0


def test_nobody_is_preempted_for_a_tenant_whose_prompt_does_not_fit_even_then():
    """A tenant is owed a place, but what may be taken for it is not enough: all go on."""
    driven = Driven()
    for name, num_tokens in (("a1", 70), ("a2", 70), ("b1", 630)):
        driven.add(name, num_tokens, tenant=name[0])
    driven.step()
    driven.step()
    driven.add("c1", 280, tenant="c")
    for _ in range(20):
        assert driven.step() == {"a1": 1, "a2": 1, "b1": 1}
    assert driven.num_preemptions == 0


def test_as_few_as_will_do_are_preempted_and_the_newcomer_is_in_at_once():
    """Where an older one makes room enough, a younger one that would not do stays; decodes do not take the room."""
    driven = Driven()
    driven.add("large", 30 * BLOCK_SIZE)
    driven.add("urgent", 20 * BLOCK_SIZE - 1, priority=1)
    driven.add("small", 5 * BLOCK_SIZE)
    for _ in range(2):
        driven.step()
    driven.scheduler.prefill_allowance = 0
    driven.add("newcomer", 20 * BLOCK_SIZE, priority=1)
    driven.step()
    assert [name for name, group in driven.groups.items() if group.num_preemptions] == ["large"]
    assert len(driven.groups["newcomer"].sequences[0].blocks) == 20


def test_one_that_does_not_fit_is_passed_by_those_that_do():
    """What is free is not kept for it while it is not enough; order among the others is by priority as ever."""
    driven = Driven()
    driven.add("elder", 40 * BLOCK_SIZE)
    driven.step()
    driven.add("large", 50 * BLOCK_SIZE)
    for name, priority in (("later", -2), ("sooner", -1)):
        driven.add(name, 10, priority=priority)
    assert driven.step() == {"elder": 1, "sooner": 10, "later": 10}


def test_who_passed_gives_way_as_soon_as_that_lets_the_passed_one_in():
    """However many small ones keep coming, a large one runs with the step after those before it ended."""
    driven = Driven()
    driven.add("elder", 25 * BLOCK_SIZE)
    driven.step()
    driven.add("large", 50 * BLOCK_SIZE)
    for number in range(30):
        driven.add(f"small-{number}", 2 * BLOCK_SIZE)
        assert "large" not in driven.step()
    assert driven.scheduler.num_running > 5
    assert driven.num_preemptions == 0
    driven.end("elder")
    driven.add("small-30", 2 * BLOCK_SIZE)
    assert driven.step()["large"] == 50 * BLOCK_SIZE
    assert 0 < driven.num_preemptions < 30
    for _ in range(20):
        assert "large" in driven.step()


def test_choices_of_who_passed_give_way_too():
    """They share its prompt's blocks: only all of them together make room."""
    driven = Driven()
    driven.add("elder", 25 * BLOCK_SIZE)
    driven.step()
    driven.add("large", 50 * BLOCK_SIZE)
    driven.add("choices", 15 * BLOCK_SIZE, num_choices=3)
    assert "choices" in driven.step()
    driven.end("elder")
    assert driven.step() == {"large": 50 * BLOCK_SIZE}
    assert driven.scheduler.num_running == 1


def test_what_has_begun_goes_before_what_is_less_urgent_and_waits():
    """Between the two comes nothing: a prompt in chunks keeps its place when both more and less urgent ones arrive."""
    driven = Driven(max_num_tokens=100)
    driven.add("begun", 250)
    driven.step()
    driven.add("less", 60, priority=-1)
    driven.add("more", 60, priority=1)
    assert list(driven.step()) == ["more", "begun"]


def test_a_preempted_request_is_counted_once_in_the_prefix_cache():
    """It finds what it computed itself: no hit, and its tokens are not asked for again."""
    driven = Driven(max_num_sequences=1)
    driven.add("r", 320, namespace=b"n")
    driven.step()
    driven.add("urgent", 20, priority=1)
    assert driven.step() == {"urgent": 20}
    driven.end("urgent")
    assert driven.step() == {"r": 1}
    assert driven.num_preemptions == 1
    assert (driven.scheduler.num_prefix_queries, driven.scheduler.num_prefix_hits) == (320 + 20, 0)
    driven.end("r")
    driven.add("other", 321, namespace=b"n")
    driven.step()
    assert (driven.scheduler.num_prefix_queries, driven.scheduler.num_prefix_hits) == (320 + 20 + 321, 320)
    assert driven.groups["other"].num_cached == 320
