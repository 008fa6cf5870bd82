"""A step is launched before the tokens of the one before are known, and nobody can tell from what comes out.

Here without a device that works by itself: what is launched is computed at once, and looked at when it would be there.
"""

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from serin_worker import engine as engine_module
from serin_worker.batch import StepPlan
from serin_worker.engine import Engine
from serin_worker.errors import EngineStopped, NotFinite
from serin_worker.flight import TokensAhead
from serin_worker.outputs import ChoiceFinished, Delta, Failed
from serin_worker.request import GenerationRequest, Sampling, ScoreRequest, Stopping
from serin_worker.runner import StepLogits
from serin_worker.sampling.sampler import Drawing
from serin_worker.sequence import PROMISED
from serin_worker.testing import TokenCacheRunner, engine_without_model, run_dry, tokens_of

GREEDY = Sampling(temperature=0.0)


class Log(list[str]):
    """What happened, in order: ``launch``, ``launch ahead`` and ``wait`` for a step's tokens."""


class Logged:
    """A runner that says when it runs, and hands results to whoever changes them."""

    def __init__(self, runner: TokenCacheRunner, log: Log) -> None:
        self.runner, self.log = runner, log
        self.change: Callable[[StepPlan, StepLogits], None] = lambda plan, result: None

    @property
    def num_moves(self) -> int:
        """None are counted."""
        return 0

    def run(self, plan: StepPlan, ahead: TokensAhead | None = None) -> StepLogits:
        """The runner's."""
        self.log.append("launch" if ahead is None else "launch ahead")
        result = self.runner.run(plan, ahead)
        self.change(plan, result)
        return result


@pytest.fixture
def log(monkeypatch) -> Log:
    """Of all engines of a test."""
    log = Log()
    own = Drawing.result
    monkeypatch.setattr(Drawing, "result", lambda drawing: log.append("wait") or own(drawing))
    return log


def engine_ahead(log: Log, **options) -> tuple[Engine, Logged]:
    """An engine that runs ahead."""
    engine, runner = engine_without_model(runs_ahead=True, **options)
    engine._runner = logged = Logged(runner, log)
    return engine, logged


def ask(engine: Engine, name: str, max_tokens: int, sampling: Sampling = GREEDY, **options) -> None:
    """Queue a request of a prompt of its own."""
    prompt = [sum(name.encode()) % 40, 3, 5]
    engine.add(GenerationRequest(name, prompt, sampling, Stopping(max_tokens=max_tokens), **options))


def right(runner: TokenCacheRunner, name: str, length: int) -> list[int]:
    """What a request must say."""
    tokens = [sum(name.encode()) % 40, 3, 5]
    for _ in range(length):
        tokens.append(runner.next_token(tokens))
    return tokens[3:]


def test_each_step_is_launched_before_the_one_before_is_waited_for(log):
    """One launch from the host's knowledge, then each behind the last; nothing is launched behind the last token."""
    engine, logged = engine_ahead(log)
    ask(engine, "a", 5)
    ask(engine, "b", 5)
    outputs = run_dry(engine)
    assert log == ["launch", *["launch ahead", "wait"] * 4, "wait"]
    for name in "ab":
        assert tokens_of(outputs[name]) == right(logged.runner, name, 5)


def test_tokens_come_as_soon_as_they_are_there(log):
    """The first step gives none: it is on its way. From then on each gives those of the one before."""
    engine, _ = engine_ahead(log)
    ask(engine, "a", 4)
    num_tokens = [sum(isinstance(output, Delta) for _, output in engine.step()) for _ in range(5)]
    assert num_tokens == [0, 1, 1, 1, 1]
    assert not engine.has_work


def test_what_was_computed_for_a_sequence_that_had_ended_is_thrown_away(log):
    """Its end is known when the next step is on its way: nothing more is said of it, and its blocks are free."""
    free, runner = engine_without_model()
    ends = right(runner, "a", 8)[3]
    engine, logged = engine_ahead(log, end_ids=frozenset({ends}))
    ask(engine, "a", 8)
    ask(engine, "b", 8)
    outputs = run_dry(engine)
    said = right(logged.runner, "a", 8)
    said = said[: said.index(ends) + 1]
    assert tokens_of(outputs["a"]) == said
    assert [o.reason for o in outputs["a"] if isinstance(o, ChoiceFinished)] == ["stop"]
    assert engine.pool.num_free == engine.pool.num_blocks
    assert free.pool.num_blocks == engine.pool.num_blocks


def test_who_arrives_is_taken_in_by_the_next_step(log):
    """A step that is on its way is waited for first: who has ended makes room."""
    engine, logged = engine_ahead(log)
    ask(engine, "a", 6)
    engine.step()
    engine.step()
    del log[:]
    ask(engine, "b", 6)
    outputs = dict.fromkeys("ab", ())
    for _ in range(2):
        for name, output in engine.step():
            outputs[name] = (*outputs[name], output)
    assert log == ["wait", "launch"]
    for name, more in run_dry(engine).items():
        outputs[name] = (*outputs[name], *more)
    assert tokens_of(outputs["b"]) == right(logged.runner, "b", 6)
    assert tokens_of(outputs["a"]) == right(logged.runner, "a", 6)[1:]


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        (Sampling(temperature=0.0, repetition_penalty=1.1), "it looks at all tokens"),
        (Sampling(temperature=0.0, presence_penalty=0.5), "it looks at the output"),
    ],
)
def test_who_looks_at_tokens_has_them_first(log, sampling, why):
    """Such a step is waited for before the next one is launched; the others in it with it."""
    engine, _ = engine_ahead(log)
    ask(engine, "a", 4, sampling)
    ask(engine, "b", 4)
    run_dry(engine)
    assert log == ["launch", "wait"] * 4, why


def test_scores_and_parts_of_prompts_are_not_left_on_their_way(log):
    """Nothing is drawn behind them."""
    engine, _ = engine_ahead(log, max_num_tokens=4)
    engine.add(ScoreRequest("s", [3, 4, 5], [6, 7]))
    ask(engine, "a", 1)
    run_dry(engine)
    assert "launch ahead" not in log


def test_without_spare_blocks_nobody_runs_ahead(log):
    """Who makes room for whom is decided when it is known who has ended; answers are the same."""
    engine, logged = engine_ahead(log, num_blocks=6, block_size=2)
    for name in "abc":
        ask(engine, name, 6)
    outputs = run_dry(engine)
    for name in "abc":
        assert tokens_of(outputs[name]) == right(logged.runner, name, 6)
    assert engine.counts.num_preemptions
    assert log.count("launch") > 3


def test_a_number_that_is_none_fails_its_request_alone(log):
    """Though the step behind it is on its way already, which read that token."""
    engine, logged = engine_ahead(log)

    def spoil(plan: StepPlan, result: StepLogits) -> None:
        for work, rows in result.rows:
            if work.sequence.group.request_id == "bad" and work.start == 4:
                result.logits[rows] = torch.nan

    logged.change = spoil
    ask(engine, "bad", 8)
    ask(engine, "good", 8)
    outputs = run_dry(engine)
    assert isinstance(outputs["bad"][-1], Failed)
    assert isinstance(outputs["bad"][-1].error, NotFinite)
    assert len(tokens_of(outputs["bad"])) == 2
    assert tokens_of(outputs["good"]) == right(logged.runner, "good", 8)
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("what", ["run", "draw"])
def test_memory_that_does_not_suffice_for_a_step_ahead(log, what, monkeypatch):
    """Once the tokens are there it is computed as any other."""
    engine, logged = engine_ahead(log)
    numbers = itertools.count()

    def refuse() -> None:
        if next(numbers) in (2, 3):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    if what == "run":
        logged.change = lambda plan, result: refuse()
    else:
        own = engine_module.begin_draw
        monkeypatch.setattr(engine_module, "begin_draw", lambda *given: refuse() or own(*given))
    ask(engine, "a", 8)
    ask(engine, "b", 8)
    outputs = run_dry(engine)
    for name in "ab":
        assert not any(isinstance(output, Failed) for output in outputs[name])
        assert tokens_of(outputs[name]) == right(logged.runner, name, 8)
    assert engine.pool.num_free == engine.pool.num_blocks


def test_cancelled_on_its_way(log):
    """Its blocks are free at once, nothing more is said of it, and the others go on."""
    engine, logged = engine_ahead(log)
    ask(engine, "a", 8)
    ask(engine, "b", 8)
    outputs = [engine.step() for _ in range(3)]
    held = engine.pool.num_free
    engine.abort("a")
    assert engine.pool.num_free > held
    rest = run_dry(engine)
    assert "a" not in rest
    said = [output for step in outputs for name, output in step if name == "b"]
    assert tokens_of([*said, *rest["b"]]) == right(logged.runner, "b", 8)


def test_all_fail_on_their_way(log):
    """An engine that is given up says so of each request once, and has nothing left to do but to look."""
    engine, _ = engine_ahead(log)
    ask(engine, "a", 8)
    engine.step()
    engine.step()
    assert [name for name, _ in engine.fail_all(EngineStopped("over"))] == ["a"]
    assert run_dry(engine) == {}
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("seed", range(6))
def test_nobody_can_tell(seed):
    """Requests of all kinds, that arrive and go at random: the same tokens, reports and ends as without."""

    def history(runs_ahead: bool) -> dict[str, list]:
        draw = random.Random(seed)
        engine, _ = engine_without_model(runs_ahead=runs_ahead, num_blocks=40, end_ids=frozenset({7, 8}), window=0)
        outputs: dict[str, list] = {}
        for number in range(60):
            sampling = Sampling(
                temperature=draw.choice((0.0, 1.0)),
                seed=number,
                num_logprobs=draw.choice((None, None, 0, 2)),
                presence_penalty=draw.choice((0.0, 0.0, 0.0, 1.0)),
                top_p=draw.choice((1.0, 0.5)),
            )
            stopping = Stopping(max_tokens=draw.randint(4, 12), min_tokens=draw.randint(0, 4))
            prompt = [draw.randrange(50) for _ in range(draw.randint(1, 9))]
            choices = draw.choice((1, 1, 2))
            engine.add(
                GenerationRequest(
                    f"r{number}", prompt, sampling, stopping, num_choices=choices, namespace=draw.choice((b"", b"a"))
                )
            )
            for _ in range(draw.choice((0, 1, 4, 12))):
                for name, output in engine.step():
                    outputs.setdefault(name, []).append(output)
        for name, more in run_dry(engine).items():
            outputs.setdefault(name, []).extend(more)
        assert engine.pool.num_free == engine.pool.num_blocks
        return outputs

    def told(outputs: list) -> list:
        return [output for output in outputs if isinstance(output, Delta | ChoiceFinished)]

    ahead, behind = history(True), history(False)
    assert ahead.keys() == behind.keys()
    for name, outputs in ahead.items():
        for choice in (0, 1):
            mine, theirs = (
                [one for one in told(some) if one.choice_index == choice] for some in (outputs, behind[name])
            )
            assert mine == theirs
        assert PROMISED not in tokens_of(outputs)
