"""A worker that computes no numbers any more is found out; a request that makes none by itself is not its fault."""

import asyncio

import pytest
import torch
from serin_worker.__main__ import _first_of
from serin_worker.description import EngineDescription
from serin_worker.errors import EngineStopped, NumericsLost
from serin_worker.loop import EngineLoop
from serin_worker.namespaces import Namespaces
from serin_worker.numerics_watch import MAX_FAILURES_IN_A_ROW, NumericsWatch
from serin_worker.serving import Serving
from serin_worker.testing import engine_without_model


class Asked:
    """Answers in turn; knows how often it was asked."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.was_asked = asyncio.Event()

    async def __call__(self) -> bool:
        """The next answer."""
        self.was_asked.set()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_failures_in_a_row_make_it_ask_and_the_answer_decides():
    """Sound: it goes on, and counts anew. Not sound: lost, with the number of failures in the sentence."""
    check = Asked(True, EngineStopped("busy"), False)
    watch = NumericsWatch(check)
    waiting = asyncio.create_task(watch.lost())
    for left in (2, 1, 0):
        for _ in range(MAX_FAILURES_IN_A_ROW):
            watch.failed()
        await check.was_asked.wait()
        check.was_asked.clear()
        await asyncio.sleep(0)
        assert len(check.answers) == left
    with pytest.raises(NumericsLost, match="3 requests in a row"):
        await waiting


async def test_a_success_between_failures_is_enough():
    """Two, a success, two: nobody is asked."""
    watch = NumericsWatch(Asked())
    for _ in range(2):
        watch.failed()
        watch.failed()
        watch.succeeded()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.lost(), 0.01)


@pytest.mark.parametrize("is_sound", [True, False])
async def test_the_model_is_asked_a_fixed_question(is_sound: bool):
    """Numbers or not: found out by one score through the engine."""
    engine, runner = engine_without_model()
    compute = runner.run
    if not is_sound:

        def broken(plan):
            result = compute(plan)
            result.logits.fill_(torch.nan)
            return result

        runner.run = broken
    loop = EngineLoop(engine)
    loop.start()
    about = EngineDescription(None, "", "", "", "", "", 64, 4, 0, 256, 8, 50, "")
    serving = Serving(loop, about, "", Namespaces(b"s" * 32, ""), "tiny", "v1", "worker-1")
    assert await serving.computes_numbers() is is_sound
    await loop.stop()


async def test_lost_numerics_end_the_process():
    """Of what may end a worker, the first one does, with its own error; the other wait is over."""
    watch = NumericsWatch(Asked(False))
    never = asyncio.Event()
    ending = asyncio.create_task(_first_of(never.wait(), watch.lost()))
    for _ in range(MAX_FAILURES_IN_A_ROW):
        watch.failed()
    with pytest.raises(NumericsLost):
        await ending
