"""The file of `serin rollout start --plan`: a rollout as YAML, checked with lines like a `serin.yaml`.

    model: small
    service: worker
    to: v2
    intent: same
    steps:
      - {weight: 1%, minSamples: 400, maxDuration: 24h}
      - {weight: 25%}
    tolerances: {errors: 0.01}
    onScarce: wait

Knows nothing about running meshes.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from serin_control.config import ConfigInvalid, Problem
from serin_control.config.reading import read_text
from serin_control.config.yaml_lines import KeyPath, Lines, YamlRefused, read_yaml

from serin_cli.config_text import refusal
from serin_cli.rollouts.asked import FILE_NAMES, INTENTS, MOST_SAMPLES, POLICIES, SERVICES, Asked, AskedStep
from serin_cli.rollouts.durations import DURATION_HINT, SHARE_HINT, duration, share

_KEYS = (
    *("model", "service", "to", "also", "intent", "steps", "tolerances", "errorRate", "onScarce"),
    *("baseline", "manual", "golden", "acceptWeak"),
)
_FIELDS = {said: name for name, said in FILE_NAMES.items()}
_STEP_KEYS = ("weight", "minSamples", "maxDuration")


def read_plan(path: Path) -> Asked:
    """What a file asks for.

    Raises:
        UsageProblem: the first thing that is wrong with it, with file and line.
    """
    try:
        values, lines = read_yaml(read_text(path))
        return _Reader(str(path), lines).asked(values, path.parent)
    except YamlRefused as refused:
        problem = Problem(str(path), refused.line, ".".join(map(str, refused.path)), refused.wrong, refused.accepted)
        raise refusal(ConfigInvalid([problem])) from refused
    except ConfigInvalid as invalid:
        raise refusal(invalid) from invalid


class _Reader:
    def __init__(self, source: str, lines: Lines) -> None:
        self._source, self._lines = source, lines

    def asked(self, values: object, folder: Path) -> Asked:
        if not isinstance(values, dict):
            self._refuse((), "empty" if values is None else "no keys", f"the keys {', '.join(_KEYS)}")
        self._known((), values, _KEYS)
        golden = self._text(values, "golden")
        return Asked(
            model=self._text(values, "model"),
            service=self._one_of(values, "service", SERVICES),
            to=self._text(values, "to"),
            also=[self._choice(("also", i), one, SERVICES) for i, one in enumerate(self._list(values, "also"))],
            intent=self._one_of(values, "intent", INTENTS),
            steps=[self._step(i, step) for i, step in enumerate(self._list(values, "steps"))],
            tolerances=dict(self._tolerances(values)),
            error_rate=self._number(("errorRate",), values["errorRate"]) if "errorRate" in values else 0.0,
            on_scarce=self._one_of(values, "onScarce", POLICIES),
            baseline=self._flag(values, "baseline"),
            manual=self._flag(values, "manual"),
            golden=folder / golden if golden else None,
            accept_weak=self._flag(values, "acceptWeak"),
            places=dict(self._places(values)),
        )

    def _places(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Where each thing is said, by the name that :class:`Asked` has for it."""
        for key, value in values.items():
            name = _FIELDS.get(key, key)
            yield name, self._place((key,))
            if isinstance(value, list):
                yield from ((f"{name}.{index}", self._place((key, index))) for index in range(len(value)))
            elif isinstance(value, dict):
                yield from ((f"{name}.{inner}", self._place((key, inner))) for inner in value)

    def _place(self, at: KeyPath) -> str:
        return f"{self._source}:{self._lines.at(at)}"

    def _step(self, index: int, step: object) -> AskedStep:
        at: KeyPath = ("steps", index)
        if isinstance(step, str):
            return AskedStep(self._share(at, step))
        if not isinstance(step, dict):
            self._refuse(at, f"{step!r} is not accepted", f"{SHARE_HINT}, or keys {', '.join(_STEP_KEYS)}")
        self._known(at, step, _STEP_KEYS)
        if "weight" not in step:
            self._refuse(at, "no 'weight'", SHARE_HINT)
        samples = self._samples(at, step)
        return AskedStep(self._share((*at, "weight"), step["weight"]), samples, self._duration(at, step))

    def _samples(self, at: KeyPath, step: Mapping[str, Any]) -> int:
        if "minSamples" not in step:
            return 0
        samples = step["minSamples"]
        if type(samples) is not int or not 1 <= samples <= MOST_SAMPLES:
            self._refuse((*at, "minSamples"), f"{samples!r} is not accepted", f"an integer from 1 to {MOST_SAMPLES}")
        return samples

    def _share(self, at: KeyPath, value: object) -> float:
        try:
            found = share(str(value))
        except ValueError:
            self._refuse(at, f"{value!r} is not accepted", SHARE_HINT)
        if not 0 < found <= 100:
            self._refuse(at, f"{value!r} is not accepted", "above 0%, at most 100%")
        return found

    def _duration(self, at: KeyPath, step: Mapping[str, Any]) -> float:
        if "maxDuration" not in step:
            return 0.0
        try:
            return duration(str(step["maxDuration"]))
        except ValueError:
            self._refuse((*at, "maxDuration"), f"{step['maxDuration']!r} is not accepted", DURATION_HINT)

    def _tolerances(self, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        found = values.get("tolerances", {})
        if not isinstance(found, dict):
            self._refuse(("tolerances",), f"{found!r} is not accepted", "metrics and numbers")
        for metric, tolerance in found.items():
            yield metric, self._number(("tolerances", metric), tolerance)

    def _number(self, at: KeyPath, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            self._refuse(at, f"{value!r} is not accepted", "a number above 0")
        return float(value)

    def _one_of(self, values: Mapping[str, Any], key: str, accepted: Mapping[str, int]) -> str:
        return self._choice((key,), values[key], accepted) if key in values else ""

    def _choice(self, at: KeyPath, value: object, accepted: Mapping[str, int]) -> str:
        if value not in accepted:
            self._refuse(at, f"{value!r} is not accepted", f"one of {', '.join(accepted)}")
        return str(value)

    def _text(self, values: Mapping[str, Any], key: str) -> str:
        value = values.get(key, "")
        if not isinstance(value, str):
            self._refuse((key,), f"{value!r} is not accepted", "text; quote it")
        return value

    def _flag(self, values: Mapping[str, Any], key: str) -> bool:
        value = values.get(key, False)
        if not isinstance(value, bool):
            self._refuse((key,), f"{value!r} is not accepted", "true or false")
        return value

    def _list(self, values: Mapping[str, Any], key: str) -> list[Any]:
        value = values.get(key, [])
        if not isinstance(value, list):
            self._refuse((key,), f"{value!r} is not accepted", "a list")
        if key == "steps" and key in values and not value:
            self._refuse((key,), "an empty list", f"at least one of {SHARE_HINT}; without the key: the usual steps")
        return value

    def _known(self, at: KeyPath, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                wrong = "unknown key" + (f" (did you mean {near[0]!r}?)" if near else "")
                self._refuse((*at, key), wrong, ", ".join(known))

    def _refuse(self, at: KeyPath, wrong: str, accepted: str) -> NoReturn:
        problem = Problem(self._source, self._lines.at(at), ".".join(map(str, at)), wrong, accepted)
        raise ConfigInvalid([problem])
