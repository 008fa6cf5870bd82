"""No block is ever leaked, and every answer is right, whatever arrives, is cancelled or is preempted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.batch import StepPlan
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.outputs import ChoiceFinished, Scored, Summary
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, ScoreRequest, Stopping
from serin_worker.scheduler import NUM_LOOKED_AT
from serin_worker.sequence import Sequence
from serin_worker.startup import load_engine
from serin_worker.testing import TokenCacheRunner, engine_without_model, run_dry, tokens_of

NUM_EXAMPLES, NUM_ARRIVALS = 50, 100
GREEDY = Sampling(temperature=0.0)


def continuation(runner: TokenCacheRunner, prompt: list[int], length: int) -> list[int]:
    """What the runner must answer."""
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(runner.next_token(tokens))
    return tokens[len(prompt) :]


def random_request(draw: random.Random, runner: TokenCacheRunner, number: int) -> GenerationRequest:
    """A request with some of everything."""
    start = draw.choice(([], [1] * 9, [2] * 14))
    prompt = start + [draw.randrange(50) for _ in range(draw.randint(1, 12))]
    num_choices = draw.choice((1, 1, 1, 2, 3))
    max_tokens = draw.randint(1, 12)
    right = continuation(runner, prompt, max_tokens)
    prior = [
        PriorOutput(index, right[: draw.randint(0, max_tokens)], is_finished=draw.random() < 0.1)
        for index in range(num_choices)
        if draw.random() < 0.2
    ]
    return GenerationRequest(
        f"r{number}",
        prompt,
        GREEDY,
        Stopping(max_tokens=max_tokens),
        num_choices=num_choices,
        prior=prior,
        namespace=draw.choice((b"", b"a", b"b")),
        priority=draw.choice((0, 0, 1, -1, -100)),
        tenant=draw.choice("xyz"),
        tenant_weight=draw.choice((1.0, 3.0)),
    )


def check_answer(runner: TokenCacheRunner, request: GenerationRequest, outputs: list) -> None:
    """A finished request said exactly what it should."""
    assert isinstance(outputs[-1], Summary)
    finished = {prior.choice_index for prior in request.prior if prior.is_finished}
    priors = {prior.choice_index: list(prior.token_ids) for prior in request.prior}
    right = continuation(runner, list(request.prompt_ids), request.stopping.max_tokens or 0)
    ended = sorted(output.choice_index for output in outputs if isinstance(output, ChoiceFinished))
    assert ended == [index for index in range(request.num_choices) if index not in finished]
    for index in ended:
        assert tokens_of(outputs, index) == right[len(priors.get(index, ())) :]


def assert_nothing_held(engine: Engine) -> None:
    """Every block is free, once, and the books agree."""
    pool = engine.pool
    assert pool.num_free == pool.num_blocks
    assert not any(pool._references)
    assert len(set(pool._blank) | set(pool._reclaimable)) == pool.num_blocks
    assert set(pool._prefix) == set(pool._reclaimable)
    assert pool.log.snapshot()[1] == frozenset(pool._by_key)
    assert engine.scheduler.num_waiting == engine.scheduler.num_running == 0


def watch_admissions(engine: Engine) -> None:
    """After every step: none was preempted for nothing, and nobody waits who may come in.

    Preempted is for who comes in with that step, or since those that run grow and blocks end. Beside tokens and a place
    that are left none waits that fits with a block for each that runs.
    """
    scheduler, pool, schedule = engine.scheduler, engine.pool, engine.scheduler.schedule

    def watched() -> StepPlan:
        running, waiting = set(scheduler._running), set(scheduler._waiting)
        num_free, num_short = pool.num_free, sum(needs_a_block(engine, sequence) for sequence in running)
        plan = schedule()
        if running - scheduler._running.keys() and not waiting & scheduler._running.keys():
            assert num_short > num_free
        left = waiting & scheduler._waiting.keys()
        num_tokens = min(scheduler.prefill_allowance, scheduler.limits.max_num_tokens) - plan.num_tokens
        has_room = num_tokens > 0 and scheduler.num_running < scheduler.limits.max_num_sequences
        if left and len(waiting) <= NUM_LOOKED_AT and has_room and not scheduler._has_held_back:
            assert not any(scheduler._fits(other, num_spare=scheduler.num_running) for other in left)
        return plan

    scheduler.schedule = watched


def needs_a_block(engine: Engine, sequence: Sequence) -> bool:
    """Whether its next token takes a block of its own."""
    index = sequence.num_computed // engine.scheduler.limits.block_size
    return index == len(sequence.blocks) or engine.pool.is_shared(sequence.blocks[index])


@settings(max_examples=NUM_EXAMPLES)
@given(st.randoms(use_true_random=True))
def test_five_thousand_arrivals(draw):
    """50 histories of 100 arrivals with random choices, prior output, namespaces, priorities, cancels and windows.

    Half of them launch each step before the tokens of the one before are known, where that is possible.
    Nobody is preempted for nothing on the way, nor waits beside room.
    """
    engine, runner = engine_without_model(
        num_blocks=draw.choice((12, 20, 40)),
        max_num_tokens=draw.choice((8, 32)),
        window=draw.choice((0, 0, 3, 9)),
        runs_ahead=draw.random() < 0.5,
    )
    watch_admissions(engine)
    requests: dict[str, GenerationRequest] = {}
    outputs: dict[str, list] = {}
    cancelled: set[str] = set()

    def step() -> None:
        for request_id, output in engine.step():
            assert request_id not in cancelled
            outputs.setdefault(request_id, []).append(output)

    for number in range(NUM_ARRIVALS):
        request = random_request(draw, runner, number)
        requests[request.request_id] = request
        engine.add(request)
        if draw.random() < 0.25:
            victim = f"r{draw.randint(0, number)}"
            if not any(isinstance(output, Summary) for output in outputs.get(victim, ())):
                cancelled.add(victim)
            engine.abort(victim)
        if draw.random() < 0.02:
            engine.pool.purge(b"a")
        for _ in range(draw.choice((0, 1, 2))):
            step()
    while engine.has_work:
        step()
    assert_nothing_held(engine)
    for request_id, request in requests.items():
        if request_id not in cancelled:
            check_answer(runner, request, outputs[request_id])


def test_cancel_frees_blocks_at_once():
    """Before the next step, everything an aborted request held is free, whether it waits, prefills or decodes."""
    engine, _ = engine_without_model(num_blocks=16, max_num_sequences=2, max_num_tokens=8)
    for number in range(4):
        engine.add(GenerationRequest(f"r{number}", [1] * 12, GREEDY, Stopping(max_tokens=4), num_choices=2))
    engine.step()
    engine.step()
    assert engine.pool.num_free < 16
    for number in range(4):
        engine.abort(f"r{number}")
    assert_nothing_held(engine)
    assert not engine.has_work


def test_a_window_holds_no_more_than_it_sees():
    """Blocks that no later token looks at are free while the sequence goes on; their prefix can be found a while."""
    engine, runner = engine_without_model(num_blocks=32, block_size=4, window=10, max_num_tokens=16)
    prompt = list(range(40))
    engine.add(GenerationRequest("r", prompt, GREEDY, Stopping(max_tokens=60), namespace=b"a"))
    outputs, held = [], []
    while engine.has_work:
        outputs += [output for _, output in engine.step()]
        held.append(engine.pool.num_blocks - engine.pool.num_free)
    assert tokens_of(outputs) == continuation(runner, prompt, 60)
    assert max(held[3:]) <= 10 // 4 + 2
    assert engine.pool.num_cached >= 40 // 4
    assert_nothing_held(engine)


@pytest.mark.parametrize("window", [0, 9])
def test_scores_share_the_pool(window):
    """Scores between generations are right and leave nothing behind."""
    engine, runner = engine_without_model(num_blocks=12, max_num_tokens=8, window=window)
    right = continuation(runner, [3, 4, 5], 20)
    for number in range(5):
        engine.add(ScoreRequest(f"s{number}", [3, 4, 5], right, namespace=b"a"))
        engine.add(GenerationRequest(f"g{number}", [3, 4, 5], GREEDY, Stopping(max_tokens=20), namespace=b"a"))
    outputs = run_dry(engine)
    for number in range(5):
        assert tokens_of(outputs[f"g{number}"]) == right
        (scored,) = outputs[f"s{number}"]
        assert isinstance(scored, Scored)
        assert [round(entry.logprob, 3) for entry in scored.logprobs] == [-0.002] * 20
    assert_nothing_held(engine)


def test_cancels_on_a_real_model(tiny_folder):
    """150 arrivals on a tiny model with a cramped cache, a third of them cancelled: right answers, nothing held."""
    config = EngineConfig(precision="float32", num_blocks=20, max_num_batched_tokens=24, max_num_sequences=8)
    engine, _ = load_engine(str(tiny_folder("llama")), config)
    draw = random.Random(11)
    prompts = [[draw.randrange(199) for _ in range(draw.randint(1, 60))] for _ in range(10)]
    right = []
    for prompt in prompts:
        engine.add(GenerationRequest("alone", prompt, GREEDY, Stopping(max_tokens=20)))
        right.append(tokens_of(run_dry(engine)["alone"]))
    outputs: dict[str, list] = {}
    cancelled: set[str] = set()
    for number in range(150):
        which = draw.randrange(10)
        name = f"{number}-{which}"
        engine.add(
            GenerationRequest(
                name, prompts[which], GREEDY, Stopping(max_tokens=20), 2, namespace=draw.choice((b"", b"n"))
            )
        )
        if draw.random() < 0.33:
            victim = draw.choice([*outputs, name])
            cancelled.add(victim)
            engine.abort(victim)
        for _ in range(draw.choice((0, 1, 2))):
            for owner, output in engine.step():
                outputs.setdefault(owner, []).append(output)
    for owner, found in run_dry(engine).items():
        outputs.setdefault(owner, []).extend(found)
    assert engine.counts.num_preemptions > 0
    assert_nothing_held(engine)
    for name in set(outputs) - cancelled:
        for choice in range(2):
            assert tokens_of(outputs[name], choice) == right[int(name.split("-")[1])]
