"""The judge of one rollout: is told what was observed of two lanes, and says promote, abort or wait.

Sessions are its units (:mod:`.blocks`), one test fits every metric (:mod:`.bets`), :mod:`.decide` puts the metrics
together. What it keeps is bounded whatever the traffic. It asks nobody and has no clock: time is what it is told.
"""

import hashlib
import math
from collections import Counter
from typing import Any

from serin_control.judge.bets import Bets
from serin_control.judge.blocks import Blocks, Settled
from serin_control.judge.decide import Known, decide
from serin_control.judge.gaps import Gaps
from serin_control.judge.memory import Growth
from serin_control.judge.metrics import METRICS
from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.readings import Readings, began_at, of_score
from serin_control.judge.sessions import SeenSessions
from serin_control.judge.settings import JudgeSettings
from serin_control.judge.verdict import Decision

MAX_REASONS = 32
MAX_STEP_S = 600.0
LOOK_EVERY_S = 0.5


class Judge:
    """Compares the canary lane with the stable one.

    Args:
        settings: how.
        num_ended, num_sessions: requests and sessions that a judge before this one counted on the canary.
    """

    def __init__(self, settings: JudgeSettings, num_ended: int = 0, num_sessions: int = 0) -> None:
        self._settings = settings
        self._readings = Readings(settings.warm_up_s, settings.subject == "cache")
        self._traffic = Blocks(settings.session_s, settings.block_s)
        self._shadow = Blocks(0.0, settings.block_s)
        self._opinions = Blocks(0.0, settings.block_s)
        self._gaps = Gaps()
        self._golden_seen = SeenSessions()
        self._exposed = SeenSessions()
        self._num_exposed_sessions = num_sessions
        self._num_ended = num_ended
        self._num_running = 0
        self._reasons: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._golden_scores = [0.0, 0.0]
        self._memory = (Growth(settings.warm_up_s), Growth(settings.warm_up_s))
        self._bets: dict[str, Bets] = {}
        self._now = settings.started_at
        self._looked_at = settings.started_at

    def begin(self, beginning: Beginning) -> None:
        """One request was given to a worker. Who asks a canary has met it then, not when the answer ends."""
        if beginning.lane == self._settings.canary_lane:
            self._num_running += 1
            self._expose(beginning.session, self._now)

    def leave_out(self, since: float, until: float) -> None:
        """The old version could take no calls in this time: of both lanes, what ran then only counts as seen."""
        anew = self._gaps.add(since, until)
        if anew is not None:
            self._traffic.forget(anew)

    def observe(self, observation: Observation) -> None:
        """One finished request; of other lanes: ignored. What began before the warm-up was over only counts as seen."""
        is_new = observation.lane == self._settings.canary_lane
        if not is_new and observation.lane != self._settings.stable_lane:
            return
        if not math.isfinite(observation.finished_at):
            return
        if is_new:
            self._num_ended += 1
            if observation.was_told_of:  # never below 0: that it began may have been lost, or told to another judge
                self._num_running = max(0, self._num_running - 1)
            self._expose(observation.session, observation.finished_at)
        self._advance(observation.finished_at)
        self._readings.meet(observation)
        began = began_at(observation)
        if began < self._settings.started_at + self._settings.warm_up_s:
            return
        if self._gaps.cover(began, observation.finished_at):
            return
        if is_new:
            _count(self._reasons, observation.reason)
            for reason, count in observation.finish_reasons.items():
                _count(self._endings, reason, count)
        unit = self._traffic.unit(is_new, observation.session, began)
        if unit is not None:
            unit.add(self._readings.of(observation, is_new))

    def score(self, score: ShadowScore) -> None:
        """One text that was scored on two lanes, or twice on the stable one."""
        if score.stable_lane != self._settings.stable_lane:
            return
        if score.canary_lane not in (self._settings.stable_lane, self._settings.canary_lane):
            return
        burdens = of_score(score)
        unit = self._shadow.unit(not score.is_calibration, score.session, self._now) if burdens else None
        if unit is not None:
            unit.add(burdens)

    def golden(self, result: GoldenResult) -> None:
        """One golden question; a question that was asked before adds nothing."""
        case = int.from_bytes(hashlib.blake2b(result.case_id.encode(), digest_size=8).digest(), "big")
        if self._golden_seen.ever(case) or not math.isfinite(result.stable_score - result.canary_score):
            return
        self._golden_seen.add(case, 0.0)
        self._golden_scores[0] += result.stable_score
        self._golden_scores[1] += result.canary_score
        burden = 0.5 + (result.stable_score - result.canary_score) / METRICS["golden"].span
        self._bets_on("golden").settle_known(0.5, {min(max(burden, 0.0), 1.0): 1})

    def feedback(self, feedback: Feedback) -> None:
        """What a caller thought; the first opinion of a session on a lane counts."""
        is_new = feedback.lane == self._settings.canary_lane
        if (is_new or feedback.lane == self._settings.stable_lane) and math.isfinite(feedback.score):
            burden = 1.0 - min(max(feedback.score, 0.0), 1.0)
            unit = self._opinions.unit(is_new, feedback.session, self._now)
            if unit is not None:
                unit.add([("feedback", burden)])

    def memory(self, sample: ProcessMemory) -> None:
        """One sample of a worker process."""
        if sample.lane == self._settings.canary_lane:
            self._memory[1].add(sample)
        elif sample.lane == self._settings.stable_lane:
            self._memory[0].add(sample)

    def decision(self) -> Decision:
        """What is known now."""
        known = Known(
            bets=self._bets,
            memory=self._memory,
            reasons=self._reasons,
            endings=self._endings,
            golden_scores=(self._golden_scores[0], self._golden_scores[1]),
            num_exposed_requests=self._num_ended + self._num_running,
            num_exposed_sessions=self._num_exposed_sessions,
            num_running=self._num_running,
            left_out_s=self._gaps.total_s,
        )
        return decide(self._settings, known)

    def dump(self) -> dict[str, Any]:
        """As JSON: what :meth:`load` needs to decide the same."""
        return {
            "lanes": [self._settings.stable_lane, self._settings.canary_lane],
            "now": [self._now, self._looked_at],
            "readings": self._readings.dump(),
            "traffic": self._traffic.dump(),
            "shadow": self._shadow.dump(),
            "opinions": self._opinions.dump(),
            "gaps": self._gaps.dump(),
            "golden_seen": self._golden_seen.dump(),
            "golden_scores": list(self._golden_scores),
            "exposed": self._exposed.dump(),
            "exposed_counts": [self._num_ended, self._num_exposed_sessions],
            "running": self._num_running,
            "reasons": dict(self._reasons),
            "endings": dict(self._endings),
            "memory": [growth.dump() for growth in self._memory],
            "bets": {name: bets.dump() for name, bets in self._bets.items()},
        }

    @classmethod
    def load(cls, settings: JudgeSettings, dumped: dict[str, Any]) -> "Judge":
        """What :meth:`dump` gave, for the same settings. Of other lanes only who met the canary is taken over."""
        judge = cls(settings)
        judge._exposed = SeenSessions.load(0.0, dumped["exposed"])
        judge._num_ended, judge._num_exposed_sessions = dumped["exposed_counts"]
        judge._num_running = dumped.get("running", 0)  # versions before kept none
        judge._now, judge._looked_at = dumped["now"]
        if "gaps" in dumped:  # versions before left nothing out
            judge._gaps = Gaps.load(dumped["gaps"])
        lanes = [settings.stable_lane, settings.canary_lane]
        if dumped.get("lanes", lanes) != lanes:
            return judge
        judge._readings = Readings.load(settings.warm_up_s, dumped["readings"], settings.subject == "cache")
        judge._traffic = Blocks.load(settings.session_s, settings.block_s, dumped["traffic"])
        judge._shadow = Blocks.load(0.0, settings.block_s, dumped["shadow"])
        judge._opinions = Blocks.load(0.0, settings.block_s, dumped["opinions"])
        judge._golden_seen = SeenSessions.load(0.0, dumped["golden_seen"])
        judge._golden_scores = list(dumped["golden_scores"])
        judge._reasons, judge._endings = Counter(dumped["reasons"]), Counter(dumped["endings"])
        old, new = (Growth.load(settings.warm_up_s, growth) for growth in dumped["memory"])
        judge._memory = (old, new)
        for name, bets in dumped["bets"].items():
            judge._bets[name] = Bets.load(judge._tolerated_burden(name), bets)
        return judge

    def _expose(self, session: int, at: float) -> None:
        if not self._exposed.ever(session):
            self._exposed.add(session, at)
            self._num_exposed_sessions += 1

    def _advance(self, now: float) -> None:
        """Let time pass. A gateway whose clock is far ahead moves it by ten minutes at most."""
        if now <= self._now:
            return
        self._now = min(now, self._now + MAX_STEP_S) if self._now else now
        if self._now < self._looked_at + LOOK_EVERY_S:
            return
        self._looked_at = self._now
        for blocks in (self._traffic, self._shadow, self._opinions):
            for settled in blocks.advance(self._now):
                self._settle(settled)

    def _settle(self, settled: Settled) -> None:
        for name in settled.old.keys() | settled.new.keys():
            self._bets_on(name).settle(settled.old.get(name, {}), settled.new.get(name, {}))

    def _bets_on(self, name: str) -> Bets:
        bets = self._bets.get(name)
        if bets is None:
            bets = self._bets[name] = Bets(self._tolerated_burden(name))
        return bets

    def _tolerated_burden(self, name: str) -> float:
        return METRICS[name].to_burden(self._settings.tolerance(name))


def _count(counts: Counter[str], reason: str, count: int = 1) -> None:
    if reason in counts or len(counts) < MAX_REASONS:
        counts[reason] += count
    else:
        counts["others"] += count
