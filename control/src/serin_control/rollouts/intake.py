"""What rollouts want to hear, and what whoever listens for them may ask.

Observations come from gateways, golden questions from their runner, memory from announcements; none of them knows
what becomes of it. Values only; nothing here has a clock or a connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore


class Intake(Protocol):
    """Takes what was observed of a model. Models without a running rollout are passed over; nothing here blocks."""

    def begin(self, model: str, beginning: Beginning, gateway: str = "") -> None:
        """One attempt of a request has begun; ``gateway`` is the instance that serves it."""

    def observe(self, model: str, observation: Observation, gateway: str = "") -> None:
        """One attempt of a request has ended; ``gateway`` is the instance that served it."""

    def score(self, model: str, score: ShadowScore) -> None:
        """One text was scored on two lanes."""

    def golden(self, model: str, result: GoldenResult) -> None:
        """One golden question was asked on both lanes."""

    def feedback(self, model: str, feedback: Feedback) -> None:
        """A caller said what an answer was worth."""

    def memory(self, model: str, sample: ProcessMemory) -> None:
        """A worker process said how much memory it holds."""


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """Two lanes of a model that are compared right now.

    Attributes:
        golden_jsonl: its golden set (:mod:`serin_control.rollouts.golden_set`); empty: none was given.
    """

    rollout_id: str
    model: str
    stable_lane: str
    canary_lane: str
    golden_jsonl: str = ""


class Trials(Protocol):
    """Says which comparisons run."""

    def running(self) -> Sequence[RunningTrial]:
        """All of them, by model; empty on a control plane that does not lead."""
