"""Which tokens are computed next: continuous batching, chunked prefill, preemption.

A step decodes one token for every running sequence that is up to date and gives what is left of its token budget to
prompts: by priority, and within one first those that nobody's pace holds up, then those that have begun, then those
that wait, by rank. Running ones are preempted for the first in line alone, and only if that lets it in. A first in
line that does not fit is passed by those behind it that do; they give back what they took as soon as that lets it in:
it waits for none but those that ran before. Knows nothing about models, tensors or sampling.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Collection

from serin_worker.batch import StepPlan, Work
from serin_worker.blocks import BlockPool
from serin_worker.fairness import TokenCounter
from serin_worker.limits import Limits
from serin_worker.order import rank, seniority
from serin_worker.sequence import Group, Sequence

ASIDE_PRIORITY = -50
"""At this priority and below nobody waits for a prompt: beside answers that run it takes a small part of a step."""
ASIDE_DIVISOR = 8
LEAST_ASIDE = 8
NUM_LOOKED_AT = 64
"""Most sequences in a step that are asked whether they fit where the first in line does not: keys take time."""


class Scheduler:
    """Waiting and running sequences over one pool of blocks."""

    def __init__(self, pool: BlockPool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self.tenants = TokenCounter()
        self.prefill_allowance = limits.max_num_tokens
        """Most prompt tokens in a step that also decodes."""
        self._waiting: dict[Sequence, None] = {}
        self._running: dict[Sequence, Sequence | None] = {}
        """With the one that each passed in line, while that may still wait."""
        self.num_prefix_queries = 0
        self.num_prefix_hits = 0
        self._has_priorities = False
        self._has_held_back = False
        """Whether the last step left decodes out for a prompt: never two in a row."""

    @property
    def num_waiting(self) -> int:
        """Sequences that hold no blocks yet, or no longer."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return len(self._running)

    def num_decoding_and_behind(self) -> tuple[int, int]:
        """Sequences that need one token computed for their next, and those that need more or hold no blocks."""
        num_decoding = sum(1 for sequence in self._running if _num_left(sequence) == 1)
        return num_decoding, len(self._running) - num_decoding + len(self._waiting)

    def add(self, group: Group) -> None:
        """Queue a request: its first choice now, the others once the prompt is computed."""
        self.tenants.enter(group.request.tenant)
        self._has_priorities |= group.request.priority != 0
        self._waiting[group.sequences[0]] = None

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; its blocks are free at once."""
        sequence.is_finished = True
        self._waiting.pop(sequence, None)
        if sequence in self._running:
            self._cease(sequence)

    def remove(self, group: Group) -> None:
        """Take a request out with all its choices. Called once for every request that was added."""
        group.unforked = []
        for sequence in group.sequences:
            if not sequence.is_finished:
                self.finish(sequence)
        self.tenants.leave(group.request.tenant)

    def distrust(self, group: Group) -> None:
        """Let no other request find what this one computed."""
        for sequence in group.sequences:
            self.pool.withdraw(sequence.held)

    def schedule(self) -> StepPlan:
        """Plan the next step; its blocks are allocated, its copies must be made before it runs."""
        plan = StepPlan()
        self._make_room(plan)
        queuing = {_tenant(s) for s in self._waiting} if self.tenants.num_busy > 1 else set()
        self._has_held_back = not self._has_held_back and self._is_held_up(queuing)
        held_back = queuing if self._has_held_back else set()
        self._plan_decodes(plan, held_back)
        self._plan_prefills(plan, queuing, held_back)
        return plan

    def commit(self, plan: StepPlan) -> None:
        """The step was run: what it computed counts, and full blocks can be found by others."""
        for work in plan.work:
            work.sequence.num_computed = work.start + work.num_tokens
            self._publish(work.sequence)
            self._move_window(work.sequence)

    def _make_room(self, plan: StepPlan) -> None:
        """Let the first in line in at the cost of running ones, of as few as will do; of none if all would not do."""
        if not (self._has_priorities or self.tenants.num_busy > 1 or any(self._running.values())):
            return
        first = min(self._waiting, key=self._rank, default=None)
        if first is None or self._fits(first):
            return
        victims = self._victims_for(first)
        if not victims or not self._fits(first, victims):
            return
        for victim in reversed(victims):
            others = [other for other in victims if other is not victim]
            if self._fits(first, others):
                victims = others
        for victim in victims:
            self._preempt(victim, plan)
        self._admit(first)  # at once: the decodes of this step would take the room

    def _victims_for(self, first: Sequence) -> list[Sequence]:
        """Who may be preempted for the first in line, in this order.

        What is less urgent and what passed it in line; and if it is owed a place, and takes an equal part of the blocks
        at most, all but one sequence of each tenant, from the one that has most.
        """
        priority = _priority(first)
        by_seniority = sorted((s for s in self._running if _priority(s) <= priority), key=seniority, reverse=True)
        yielding = [s for s in by_seniority if _priority(s) < priority or self._running[s] in self._waiting]
        is_small = self._num_blocks(first) <= self.pool.num_blocks // self.tenants.num_busy
        if not is_small or not self.tenants.is_owed(_tenant(first)):
            return yielding
        num_running: Counter[str] = Counter()
        place = {}
        for sequence in sorted(self._running, key=seniority):
            place[sequence] = num_running[_tenant(sequence)]
            num_running[_tenant(sequence)] += 1
        crowding = [s for s in by_seniority if place[s] > 0 and s not in yielding]
        return yielding + sorted(crowding, key=lambda s: place[s], reverse=True)

    def _is_held_up(self, queuing: set[str]) -> bool:
        """Whether a prompt that nobody's pace holds up shall have a step without the decodes of those that queue.

        They wait no longer than for a step with both, and its first token comes sooner.
        """
        if not queuing:
            return False
        behind = (s for s in self._running if _num_left(s) > 1)
        prompts = [s for s in itertools.chain(self._waiting, behind) if self._is_unpaced(s, queuing)]
        first = min(prompts, key=self._rank, default=None)
        if first is None or _is_aside(first) or not (first in self._running or self._fits(first)):
            return False
        return all(_priority(s) <= _priority(first) for s in itertools.chain(self._running, self._waiting))

    def _plan_decodes(self, plan: StepPlan, held_back: set[str]) -> None:
        ready = [s for s in self._running if _num_left(s) == 1 and not s.group.is_score and _tenant(s) not in held_back]
        for sequence in sorted(ready, key=seniority)[: self.limits.max_num_tokens]:
            if sequence in self._running and self._make_writable(sequence, plan):
                plan.work.append(self._work(sequence, 1))

    def _make_writable(self, sequence: Sequence, plan: StepPlan) -> bool:
        """Own the block of the next position, at the cost of the least senior; False if that is this one itself."""
        index = sequence.num_computed // self.limits.block_size
        is_new = index == len(sequence.blocks)
        while self._is_short(sequence):
            if self.pool.can_allocate(1):
                (block,) = self.pool.allocate(1)
                if is_new:
                    sequence.blocks.append(block)
                else:
                    plan.copies.append((sequence.blocks[index], block))
                    self.pool.release([sequence.blocks[index]])
                    sequence.blocks[index] = block
                return True
            victim = max(self._running, key=seniority)
            self._preempt(victim, plan)
            if victim is sequence:
                return False
        return True

    def _plan_prefills(self, plan: StepPlan, queuing: set[str], held_back: set[str]) -> None:
        """By priority; within one what nobody's pace holds up, what has begun, what waits; by rank."""
        most = budget = self.limits.max_num_tokens - len(plan.work)
        aside = budget
        if held_back:
            budget = 0
        elif plan.work:
            budget = min(budget, self.prefill_allowance)
        if self._has_priorities and not all(_is_aside(work.sequence) for work in plan.work):
            aside = max(LEAST_ASIDE, self.prefill_allowance // ASIDE_DIVISOR)
        planned = {work.sequence for work in plan.work}
        behind = [
            s
            for s in self._running
            if _num_left(s) > 0 and s not in planned and not (_num_left(s) == 1 and _tenant(s) in held_back)
        ]
        behind.sort(key=lambda s: (-_priority(s), not self._is_unpaced(s, queuing), self._rank(s)))
        line = list(self._waiting)
        passed: Sequence | None = None

        def plan_chunk(sequence: Sequence) -> None:
            nonlocal most, budget
            num_tokens = self._plan_chunk(
                sequence, most if self._is_unpaced(sequence, queuing) else budget, plan, aside
            )
            most, budget = most - num_tokens, budget - num_tokens

        def admit(level: float) -> None:
            """Those whose turn is before what has begun at a level of priority."""
            nonlocal line, passed
            while line and most > 0 and len(self._running) < self.limits.max_num_sequences:
                sequence = min(line, key=self._rank)
                is_unpaced = self._is_unpaced(sequence, queuing)
                if (_priority(sequence), is_unpaced) <= (level, False) or not (budget > 0 or is_unpaced):
                    return
                line.remove(sequence)
                if self._fits(sequence) if passed is None else self._may_pass(sequence):
                    self._admit(sequence, passed)
                    plan_chunk(sequence)
                elif passed is None:
                    passed = sequence
                    line = self._passing(line)

        for priority, begun in itertools.groupby(behind, key=_priority):
            admit(priority)
            for sequence in begun:
                plan_chunk(sequence)
        admit(-math.inf)

    def _passing(self, line: list[Sequence]) -> list[Sequence]:
        """Of the next in line those that fit. Who does not will not later in this step: nothing gets free in it."""
        if not self.pool.can_allocate(1):
            return []
        return [s for s in heapq.nsmallest(NUM_LOOKED_AT, line, key=self._rank) if self._may_pass(s)]

    def _may_pass(self, sequence: Sequence) -> bool:
        """Whether it fits and leaves a block to each that runs: they would soon take back what it computed."""
        return self._fits(sequence, num_spare=len(self._running))

    def _is_unpaced(self, sequence: Sequence, queuing: set[str]) -> bool:
        """Whether nobody's pace holds this prompt up: nothing else of its tenant runs, and others have a queue."""
        tenant = _tenant(sequence)
        others_queue = len(queuing) > (tenant in queuing)
        return others_queue and self.tenants.num_running(tenant) <= (sequence in self._running)

    def _plan_chunk(self, sequence: Sequence, budget: int, plan: StepPlan, aside: int) -> int:
        if _is_aside(sequence):
            budget = min(budget, aside - sum(work.num_tokens for work in plan.work if _is_aside(work.sequence)))
        if budget <= 0:
            return 0
        group = sequence.group
        num_tokens = min(_num_left(sequence), budget)
        if group.unforked:
            num_tokens = min(num_tokens, sequence.num_prompt - sequence.num_computed)
        if group.is_score:
            num_unscored = max(sequence.num_prompt - 1 - sequence.num_computed, 0)
            num_tokens = min(num_tokens, num_unscored + self.limits.max_num_scored)
        plan.work.append(self._work(sequence, num_tokens))
        return num_tokens

    def _work(self, sequence: Sequence, num_tokens: int) -> Work:
        group, start = sequence.group, sequence.num_computed
        end = start + num_tokens
        self.tenants.charge(group.request.tenant, num_tokens, group.request.tenant_weight)
        if group.is_score:
            num_scored = max(end - max(start, sequence.num_prompt - 1), 0)
            return Work(sequence, start, num_tokens, num_scored=num_scored)
        drawn = [sequence] if end == sequence.num_tokens else []
        if group.unforked and end == sequence.num_prompt:
            drawn += self._fork(sequence)
        return Work(sequence, start, num_tokens, tuple(drawn))

    def _fork(self, parent: Sequence) -> list[Sequence]:
        """Let the other choices share the prompt's blocks; returns those that draw from the prompt's last position.

        A choice with prior output, or without a free slot, waits: it finds the prompt's full blocks by their keys.
        """
        drawn = []
        num_blocks = -(-parent.num_prompt // self.limits.block_size)
        for sequence in parent.group.unforked:
            if sequence.num_prior or len(self._running) >= self.limits.max_num_sequences:
                self._waiting[sequence] = None
                continue
            self._begin(sequence, self._running[parent])
            sequence.num_computed = sequence.num_prompt
            sequence.blocks, sequence.num_gone = parent.blocks[:num_blocks], parent.num_gone
            sequence.keys = parent.keys[: sequence.num_prompt // self.limits.block_size]
            sequence.num_published = len(sequence.keys)
            self.pool.share(sequence.held)
            drawn.append(sequence)
        parent.group.unforked = []
        return drawn

    def _fits(self, sequence: Sequence, without: Collection[Sequence] = (), num_spare: int = 1) -> bool:
        """Whether a waiting sequence would find a slot and blocks for all its tokens if some did not run any more.

        With ``num_spare`` blocks or more for those that go on: at least what they need for their next token.
        """
        remaining = self._running.keys() - without if without else self._running.keys()
        if len(remaining) >= self.limits.max_num_sequences:
            return False
        found = self.pool.match(self._shareable_keys(sequence))
        freed = self.pool.freed_by(itertools.chain.from_iterable(s.held for s in without))
        num_needed = self._num_blocks(sequence) - len(found)
        num_needed += self.pool.num_reclaimable_in(found) + len(freed.intersection(found))
        if remaining:
            num_needed += max(num_spare, self.pool.num_blocks // 100, sum(map(self._is_short, remaining)))
        return self.pool.can_allocate(num_needed - len(freed))

    def _is_short(self, sequence: Sequence) -> bool:
        """Whether the next position of a running sequence takes a block that it does not own."""
        index = sequence.num_computed // self.limits.block_size
        return index == len(sequence.blocks) or self.pool.is_shared(sequence.blocks[index])

    def _admit(self, sequence: Sequence, passed: Sequence | None = None) -> None:
        keys = self._shareable_keys(sequence)
        found = self.pool.match(keys)
        self.pool.share(found)
        sequence.blocks = found + self.pool.allocate(self._num_blocks(sequence) - len(found))
        sequence.num_computed = len(found) * self.limits.block_size
        sequence.num_published = len(found)
        if sequence.group.num_cached is None:  # once for a request: later it finds what it computed itself
            sequence.group.num_cached = sequence.num_computed
            self.num_prefix_queries += sequence.num_tokens
            self.num_prefix_hits += sequence.num_computed
        del self._waiting[sequence]
        for other in self._running:
            if self._running[other] is sequence:
                self._running[other] = None
        self._begin(sequence, passed)

    def _shareable_keys(self, sequence: Sequence) -> list[bytes]:
        """Keys of full blocks before the first position whose logits are needed."""
        is_from_prompt = sequence.group.is_score or sequence.group.unforked
        num_tokens = sequence.num_prompt if is_from_prompt else sequence.num_tokens
        return sequence.extend_keys((num_tokens - 1) // self.limits.block_size, self.limits.block_size)

    def _num_blocks(self, sequence: Sequence) -> int:
        return -(-sequence.num_tokens // self.limits.block_size)

    def _preempt(self, sequence: Sequence, plan: StepPlan) -> None:
        """Take a sequence's blocks; it waits to be computed again."""
        self._cease(sequence)
        self._waiting[sequence] = None
        sequence.group.num_preemptions += 1
        plan.num_preempted += 1

    def _begin(self, sequence: Sequence, passed: Sequence | None) -> None:
        self._running[sequence] = passed
        self.tenants.begin(_tenant(sequence))

    def _cease(self, sequence: Sequence) -> None:
        del self._running[sequence]
        self.tenants.cease(_tenant(sequence))
        self.pool.release(sequence.held)
        sequence.blocks, sequence.num_gone = [], 0
        sequence.num_computed = 0
        sequence.num_published = 0

    def _move_window(self, sequence: Sequence) -> None:
        """Give back the blocks that no later token looks at; their prefix can be found until they are used again."""
        if self.limits.window:
            first_seen = max(sequence.num_computed - self.limits.window + 1, 0)
            self.pool.release(sequence.let_go(first_seen // self.limits.block_size))

    def _publish(self, sequence: Sequence) -> None:
        request = sequence.group.request
        first, last = sequence.num_published, sequence.num_computed // self.limits.block_size
        if request.namespace and last > first:
            keys = sequence.extend_keys(last, self.limits.block_size)
            self.pool.publish(request.purge_key or request.namespace, sequence.blocks[first:last], keys[first:last])
            sequence.num_published = last

    def _rank(self, sequence: Sequence) -> tuple[int, bool, bool, float, int, int]:
        return rank(sequence, self.tenants)


def _tenant(sequence: Sequence) -> str:
    return sequence.group.request.tenant


def _priority(sequence: Sequence) -> int:
    return sequence.group.request.priority


def _is_aside(sequence: Sequence) -> bool:
    return _priority(sequence) <= ASIDE_PRIORITY


def _num_left(sequence: Sequence) -> int:
    """Tokens to compute before the next draw; the last token of a score predicts nothing that is asked."""
    return sequence.num_tokens - sequence.num_computed - sequence.group.is_score
