"""What a person asks of a rollout, from flags and a plan file, as the control plane takes it.

Knows nothing about YAML or running meshes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from serin.control.v1 import registry_pb2, rollout_pb2
from serin_control.lanes import WEIGHT_SUM
from serin_control.rollouts.golden_set import GoldenInvalid, parse_golden
from serin_control.rollouts.spec import DEFAULT_WEIGHTS

from serin_cli.errors import UsageProblem

SERVICES = {
    "worker": registry_pb2.SERVICE_KIND_WORKER,
    "tokenizer": registry_pb2.SERVICE_KIND_TOKENIZER,
    "cache": registry_pb2.SERVICE_KIND_CACHE,
    "gateway": registry_pb2.SERVICE_KIND_GATEWAY,
}
INTENTS = {
    "same": rollout_pb2.ROLLOUT_INTENT_SAME,
    "better": rollout_pb2.ROLLOUT_INTENT_BETTER,
}
POLICIES = {
    "wait": rollout_pb2.SCARCE_POLICY_WAIT,
    "ask": rollout_pb2.SCARCE_POLICY_ASK,
    "abort": rollout_pb2.SCARCE_POLICY_ABORT,
}
SAME, EXPERIMENT = "same", "experiment"
MOST_SAMPLES = 10**9
_BLAMED = re.compile(r"(?P<key>[a-z_]+)(?:\.(?P<inner>[a-z_]+)|: step (?P<step>[0-9]+))?:")
_NAMES = {"to_version": "to"}
"""What the control plane calls what people name otherwise."""

FILE_NAMES = {"error_rate": "errorRate", "on_scarce": "onScarce", "accept_weak": "acceptWeak"}
"""What a plan file calls what :class:`Asked` names otherwise."""

DEFAULT_SHARES = tuple(weight * 100 / WEIGHT_SUM for weight in DEFAULT_WEIGHTS)


@dataclass(frozen=True)
class AskedStep:
    """One step: a share in percent; 0 samples or seconds: the control plane's default."""

    weight_percent: float
    min_samples: int = 0
    max_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """What is asked; what is empty was not said.

    Attributes:
        places: where a file says it, as ``file:line``, by name of the field, of a step (``steps.0``) or of a tolerance
            (``tolerances.errors``).
    """

    model: str = ""
    service: str = ""
    to: str = ""
    also: list[str] = field(default_factory=list)
    intent: str = ""
    steps: list[AskedStep] = field(default_factory=list)
    tolerances: dict[str, float] = field(default_factory=dict)
    error_rate: float = 0.0
    on_scarce: str = ""
    baseline: bool = False
    manual: bool = False
    golden: Path | None = None
    accept_weak: bool = False
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    def over(self, other: "Asked") -> "Asked":
        """What this says, and where it says nothing what the other does."""
        said = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name)}
        places = {name: place for name, place in other.places.items() if name.partition(".")[0] not in said}
        return replace(other, **{**said, "places": {**places, **self.places}})

    def placed(self, refusal: str) -> str:
        """What the control plane said of it, behind the place where a file says so: ``plan.yaml:6: steps: step 2: …``.

        Args:
            refusal: begins with the key, as all of the control plane's do.
        """
        blamed = _BLAMED.match(refusal)
        if blamed is None:
            return refusal
        key = _NAMES.get(blamed["key"], blamed["key"])
        inner = blamed["inner"] or (str(int(blamed["step"]) - 1) if blamed["step"] else "")
        place = self.places.get(f"{key}.{inner}") or self.places.get(key)
        said = FILE_NAMES.get(key, key) + refusal[blamed.end("key") :]
        return f"{place}: {said}" if place else refusal

    def with_limits(self, min_samples: int, max_s: float) -> "Asked":
        """The same with these limits in every step that names none of its own; 0: none are named."""
        if not min_samples and not max_s:
            return self
        steps = self.steps or [AskedStep(weight) for weight in DEFAULT_SHARES]
        return replace(
            self,
            steps=[
                AskedStep(step.weight_percent, step.min_samples or min_samples, step.max_s or max_s) for step in steps
            ],
        )

    def message(self, actor: str) -> rollout_pb2.StartRolloutRequest:
        """What the control plane is asked.

        Raises:
            UsageProblem: something that must be said was not, or the golden set is broken, with file and line.
        """
        for flag, value, accepted in (
            ("--model", self.model, "the model's name"),
            ("--service", self.service, f"one of {', '.join(SERVICES)}"),
            ("--to", self.to, "the version to move to"),
            ("--intent", self.intent, f"one of {', '.join(INTENTS)}"),
        ):
            if not value:
                raise UsageProblem(f"{flag}: not set: accepted: {accepted}")
        experiment = self.intent == EXPERIMENT
        return rollout_pb2.StartRolloutRequest(
            model=self.model,
            service=SERVICES[self.service],
            to_version=self.to,
            intent=rollout_pb2.ROLLOUT_INTENT_EXPERIMENT if experiment else INTENTS[self.intent],
            steps=[
                rollout_pb2.RolloutStep(
                    weight_percent=step.weight_percent,
                    min_sample_count=step.min_samples,
                    max_seconds=round(step.max_s),
                )
                for step in self.steps
            ],
            manual=self.manual,
            also=[SERVICES[service] for service in self.also],
            golden_jsonl=self._golden(),
            tolerances=self.tolerances,
            error_rate=self.error_rate,
            baseline=self.baseline,
            on_scarce=POLICIES[self.on_scarce or "wait"],
            accept_weak=self.accept_weak,
            actor=actor,
        )

    def _golden(self) -> str:
        if self.golden is None:
            return ""
        place = self.places.get("golden")
        return read_golden(self.golden, f"{place}: golden" if place else "--golden")


def read_golden(path: Path, named_by: str = "--golden") -> str:
    """The text of a golden set that ``named_by`` names, once every line of it is good.

    Raises:
        UsageProblem: the first broken line, with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        parse_golden(text, str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageProblem(f"{named_by}: {str(path)!r}: {why}: accepted: a readable file of JSON lines") from error
    except GoldenInvalid as error:
        more = len(error.problems) - 1
        raise UsageProblem(f"{error.problems[0]}" + (f" (and {more} more)" if more else "")) from error
    return text
