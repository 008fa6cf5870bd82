"""Asks golden questions on both lanes of every comparison that has some, and tells how each lane answered.

Each question is asked once for a comparison, greedily. A lane that fails at a question has answered it wrongly; one
that cannot be asked is asked again later. An answer that cannot be scored counts for nobody. Knows nothing about how
lanes are reached or what becomes of the results.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from serin_control.alarms import Alarms
from serin_control.judge.observation import GoldenResult
from serin_control.observations.asking import Asker, LaneAway, LaneFailed
from serin_control.observations.scorers import Scorer
from serin_control.observations.unscored import NotScored, Unscored
from serin_control.rollouts.golden_set import GoldenCase, GoldenInvalid, parse_golden
from serin_control.rollouts.intake import Intake, RunningTrial, Trials

LOOK_EVERY_S = 0.5
PAUSE_S = 1.0
MAX_AT_ONCE = 2
"""Questions that are asked at the same time in one comparison; each is asked on both lanes at once."""


TRIES_BEFORE_ALARM = 10
"""So often a lane may not be there in a row before somebody is told."""


@dataclass(slots=True)
class Progress:
    """How far the questions of one comparison are, and what keeps them.

    Attributes:
        unscored: those that could not be scored.
        problem: why no more are asked; empty: they are, or all were.
        away: lanes that cannot be asked, and why, once that has lasted.
    """

    unscored: Unscored
    num_cases: int = 0
    num_asked: int = 0
    problem: str = ""
    away: dict[str, str] = field(default_factory=dict)

    def alarms(self) -> Iterator[tuple[str, str]]:
        """What a person should know, each with the key of an alarm."""
        is_over = self.num_asked >= self.num_cases or bool(self.problem)
        if self.problem:
            yield "problem", f"golden questions are asked no more: {self.problem}"
        for number, said in enumerate(self.unscored.tell(self.num_cases, is_over=is_over)):
            yield f"unscored/{number}", said
        for lane, why in self.away.items():
            yield f"away/{lane}", f"golden questions wait for lane {lane}: {why}"


class GoldenRunner:
    """Follows the comparisons; `run` is a task of whoever owns it.

    Args:
        trials: which comparisons run.
        asker: asks lanes.
        scorer: scores answers.
        intake: told the results.
        alarms: told what keeps questions from being asked or scored.
        pause_s: seconds before a lane that could not be asked is asked again.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        trials: Trials,
        asker: Asker,
        scorer: Scorer,
        intake: Intake,
        alarms: Alarms | None = None,
        *,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trials = trials
        self._asker = asker
        self._scorer = scorer
        self._intake = intake
        self._alarms = alarms or Alarms()
        self._pause_s = pause_s
        self._clock = clock
        self._asked: dict[str, RunningTrial] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}

    @property
    def progress(self) -> Mapping[str, Progress]:
        """How far each running comparison is, by rollout."""
        return self._progress

    async def run(self) -> None:
        """Follow the comparisons, for as long as this task lives."""
        try:
            while True:
                self.follow()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.clear()
            self._asked.clear()

    def follow(self) -> None:
        """Begin with comparisons that are new or of other lanes than before, and leave those that are over."""
        wanted = {trial.rollout_id: trial for trial in self._trials.running() if trial.golden_jsonl}
        for rollout_id in [known for known, trial in self._asked.items() if wanted.get(known) != trial]:
            self._tasks.pop(rollout_id).cancel()
            self._progress.pop(rollout_id, None)
            del self._asked[rollout_id]
        for rollout_id in wanted.keys() - self._tasks.keys():
            self._progress[rollout_id] = Progress(Unscored(self._clock))
            self._asked[rollout_id] = wanted[rollout_id]
            self._tasks[rollout_id] = asyncio.create_task(
                self._ask_all(wanted[rollout_id], self._progress[rollout_id]), name=f"golden questions of {rollout_id}"
            )
        self._tell()

    async def until_done(self, rollout_id: str) -> None:
        """Wait until a comparison's questions have all been asked."""
        await asyncio.shield(self._tasks[rollout_id])

    def _tell(self) -> None:
        said: dict[str, str] = {}
        for rollout_id, progress in self._progress.items():
            task = self._tasks[rollout_id]
            if task.done() and not task.cancelled() and (defect := task.exception()) is not None:
                progress.problem = f"the asking broke off: {type(defect).__name__}"
            said |= {f"{rollout_id}/{key}": f"rollout {rollout_id}: {text}" for key, text in progress.alarms()}
        self._alarms.replace("golden/", said)

    async def _ask_all(self, trial: RunningTrial, progress: Progress) -> None:
        try:
            cases = parse_golden(trial.golden_jsonl)
        except GoldenInvalid as error:  # checked before it was started; another version may have been stricter
            progress.problem = str(error)
            return
        progress.num_cases = len(cases)
        slots = asyncio.Semaphore(MAX_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for case in cases:
                await slots.acquire()
                task = tasks.create_task(self._ask_one(trial, case, progress))
                task.add_done_callback(lambda _: slots.release())

    async def _ask_one(self, trial: RunningTrial, case: GoldenCase, progress: Progress) -> None:
        stable, canary = await asyncio.gather(
            self._score_on(trial.stable_lane, trial, case, progress),
            self._score_on(trial.canary_lane, trial, case, progress),
        )
        if isinstance(stable, NotScored):
            progress.unscored.note(case.id, stable)
        elif isinstance(canary, NotScored):
            progress.unscored.note(case.id, canary)
        else:
            self._intake.golden(trial.model, GoldenResult(case.id, stable, canary))
        progress.num_asked += 1

    async def _score_on(
        self, lane: str, trial: RunningTrial, case: GoldenCase, progress: Progress
    ) -> float | NotScored:
        """What a lane's answer is worth, or why that cannot be said."""
        for times in itertools.count(1):
            try:
                answer = await self._asker.ask(trial.model, lane, case)
                progress.away.pop(lane, None)
                return await self._scorer.score(case, answer)
            except LaneAway as away:
                if times >= TRIES_BEFORE_ALARM:
                    progress.away[lane] = str(away)
                await asyncio.sleep(self._pause_s)
            except LaneFailed:
                progress.away.pop(lane, None)
                break
            except NotScored as problem:
                return problem
        return 0.0
