"""An intake that only keeps what it is told."""

from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore


class IntakeLog:
    """An :class:`serin_control.rollouts.intake.Intake` that keeps what it was told, in order."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, Beginning]] = []
        self.heard: list[tuple[str, Observation | ShadowScore | GoldenResult | Feedback | ProcessMemory]] = []

    def begin(self, model: str, beginning: Beginning, gateway: str = "") -> None:
        """Keep it."""
        self.begun.append((model, beginning))

    def observe(self, model: str, observation: Observation, gateway: str = "") -> None:
        """Keep it."""
        self.heard.append((model, observation))

    def score(self, model: str, score: ShadowScore) -> None:
        """Keep it."""
        self.heard.append((model, score))

    def golden(self, model: str, result: GoldenResult) -> None:
        """Keep it."""
        self.heard.append((model, result))

    def feedback(self, model: str, feedback: Feedback) -> None:
        """Keep it."""
        self.heard.append((model, feedback))

    def memory(self, model: str, sample: ProcessMemory) -> None:
        """Keep it."""
        self.heard.append((model, sample))
