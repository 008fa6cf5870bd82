"""Nobody who listens and nothing that runs: for control planes without rollouts."""

from collections.abc import Sequence

from serin_control.judge.observation import Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.rollouts.intake import RunningTrial


class Nobody:
    """An :class:`~serin_control.rollouts.intake.Intake` that passes everything over, of no trials."""

    def observe(self, model: str, observation: Observation) -> None:
        """Pass over."""

    def score(self, model: str, score: ShadowScore) -> None:
        """Pass over."""

    def golden(self, model: str, result: GoldenResult) -> None:
        """Pass over."""

    def feedback(self, model: str, feedback: Feedback) -> None:
        """Pass over."""

    def memory(self, model: str, sample: ProcessMemory) -> None:
        """Pass over."""

    def running(self) -> Sequence[RunningTrial]:
        """None."""
        return ()
