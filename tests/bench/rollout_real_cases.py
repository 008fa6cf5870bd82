"""What is wrong, or not, with the new version of a real rollout, and what that rollout is asked to do.

Letters as in :mod:`rollout_cases`. Knows nothing about processes, traffic or tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROMOTED, ABORTED, REFUSED, UNDECIDED = "promoted", "aborted", "refused", "undecided"
"""How a rollout can end; refused: `serin rollout start` did not begin it. Undecided: its step's time was over."""

STEPS = "50%"
MIN_SAMPLES = 150
MAX_DURATION = "10min"
COARSER = {
    "errors": 0.03, "first_token": 0.6, "per_token": 0.3, "answer_length": 0.4, "finish_reasons": 0.10,
    "answers": 0.015, "agreement": 0.15, "refusals": 0.06,
}  # fmt: skip
"""What good versions are let through with: what a few hundred sessions can show. All others have the defaults."""


@dataclass(frozen=True)
class RealCase:
    """One case.

    Attributes:
        name: how tables call it.
        title: what it is.
        done: what was done to make the new version.
        wanted: the right ends.
        intent: what must hold of the answers.
        stable: demo version that has the traffic before.
        stable_build: patches of the old version's worker; empty: it is what is declared.
        build: patches of the new version's worker (:mod:`rollout_real_builds`); empty: the same code.
        files: what the new version's model folder is; empty: the old version's.
        also_tokenizer: whether the tokenizer moves along.
        golden: whether there is a golden set.
        tolerances: that are not the defaults.
        starts: whether its processes can become ready.
        times: so many rollouts for one of others; those that take a minute can be more.
    """

    name: str
    title: str
    done: str
    wanted: frozenset[str] = frozenset({ABORTED})
    intent: str = "same"
    stable: str = "v2"
    stable_build: str = ""
    build: str = ""
    files: str = ""
    also_tokenizer: bool = False
    golden: bool = False
    tolerances: Mapping[str, float] = field(default_factory=dict)
    starts: bool = True
    times: int = 1


_ALL = (
    RealCase(
        "a1",
        "errors 0 -> 3 %",
        "a build of the worker that fails 3 % of its requests with INTERNAL",
        build="errors_3",
    ),
    RealCase(
        "a2",
        "errors 1 % -> 4 %",
        "the same with 4 %, against a build that fails 1 %",
        stable_build="errors_1",
        build="errors_4",
    ),
    RealCase("b", "30 % slower per token", "a build that waits 30 % of each step's time after it", build="slower"),
    RealCase(
        "c1",
        "weights rounded to 3 bits",
        "every matrix rounded to 3-bit integers, row by row",
        files="rounded",
    ),
    RealCase("c2", "5 % of the weights zeroed", "5 % of every matrix, by chance", files="zeroed"),
    RealCase(
        "d",
        "crash at start",
        "a build whose process ends while it loads the weights",
        wanted=frozenset({ABORTED, REFUSED}),
        build="crashes",
        starts=False,
        times=2,
    ),
    RealCase("e", "64 KiB leaked per request", "a build that keeps 64 KiB of every request", build="leaks"),
    RealCase(
        "f",
        "another vocabulary",
        "two tokens of the tokenizer changed places; worker and tokenizer move together",
        wanted=frozenset({ABORTED, REFUSED}),
        files="vocabulary",
        also_tokenizer=True,
        times=2,
    ),
    RealCase(
        "g", "equal", "the same files and code as another version", wanted=frozenset({PROMOTED}), tolerances=COARSER
    ),
    RealCase(
        "h",
        "demo v1 -> v2, better",
        "the demo models, with a golden set of 200 held-out questions",
        wanted=frozenset({PROMOTED}),
        intent="better",
        stable="v1",
        files="v2",
        golden=True,
        tolerances=COARSER,
    ),
    RealCase(
        "i",
        "demo v2 -> v1, better",
        "the demo models, with the same golden set",
        intent="better",
        files="v1",
        golden=True,
        times=2,
    ),
)
REAL_CASES: Mapping[str, RealCase] = {case.name: case for case in _ALL}
