"""What is wrong with the new version, case by case: the effects that simulated rollouts put on one lane."""

from collections.abc import Mapping
from dataclasses import dataclass

GOOD, BAD = "promote", "abort"


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: how tables call it.
        title: what it is.
        wanted: the right verdict.
        intent: what must hold of the answers.
        stable_errors, canary_errors: share of requests that fail.
        slower: factor on the time of each token.
        leaked_bytes: that the new version keeps of each request.
        scores: recording of what the new version's weights do to scores.
        golden: versions whose recorded answers the golden set shows: (stable, canary).
        num_runs: share of the runs.
        why_fewer: why it is not all of them.
    """

    name: str
    title: str
    wanted: str = BAD
    intent: str = "same"
    stable_errors: float = 0.001
    canary_errors: float = 0.001
    slower: float = 1.0
    leaked_bytes: float = 0.0
    scores: str = "rebuilt (bfloat16)"
    golden: tuple[str, str] | None = None
    num_runs: float = 1.0
    why_fewer: str = ""


_ALL = (
    Case("a1", "errors 0.1 % -> 2.1 %", canary_errors=0.021),
    Case("a2", "errors 1 % -> 3 %", stable_errors=0.01, canary_errors=0.03),
    Case("b", "30 % slower per token", slower=1.3),
    Case("c1", "weights rounded to 3 bits", scores="rounded to 3 bits"),
    Case("c2", "5 % of the weights zeroed", scores="5 % of weights zeroed"),
    Case("e", "64 KiB leaked per request", leaked_bytes=65_536.0),
    Case("g", "equal, errors 0.1 %", GOOD),
    Case(
        "g2",
        "equal, errors 1 %",
        GOOD,
        stable_errors=0.01,
        canary_errors=0.01,
        num_runs=0.2,
        why_fewer="each needs about three times the requests of g",
    ),
    Case("h", "demo v1 -> v2, better", GOOD, intent="better", golden=("v1", "v2")),
    Case("i", "demo v2 -> v1, better", intent="better", golden=("v2", "v1")),
)
CASES: Mapping[str, Case] = {case.name: case for case in _ALL}
