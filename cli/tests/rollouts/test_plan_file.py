"""Plan files: what is asked is read with lines, and flags come before it."""

from pathlib import Path

import pytest
from serin_cli.errors import UsageProblem
from serin_cli.rollouts.asked import Asked, AskedStep
from serin_cli.rollouts.plan_file import read_plan

GOOD = """\
model: small
service: worker
to: v2
also: [tokenizer]
intent: better
steps:
  - {weight: 1%, minSamples: 400, maxDuration: 24h}
  - 25%
tolerances: {errors: 0.01}
errorRate: 0.02
onScarce: ask
baseline: true
manual: true
golden: golden.jsonl
acceptWeak: true
"""


def test_everything_can_be_said_in_a_file(tmp_path):
    """Each key; files are relative to it."""
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD)
    assert read_plan(file) == Asked(
        model="small",
        service="worker",
        to="v2",
        also=["tokenizer"],
        intent="better",
        steps=[AskedStep(1.0, 400, 86_400.0), AskedStep(25.0)],
        tolerances={"errors": 0.01},
        error_rate=0.02,
        on_scarce="ask",
        baseline=True,
        manual=True,
        golden=tmp_path / "golden.jsonl",
        accept_weak=True,
    )


def test_flags_come_before_the_file(tmp_path):
    """What a flag says counts, what it does not say the file says; limits fill steps that name none."""
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD)
    asked = Asked(to="v3", steps=[AskedStep(5.0)]).over(read_plan(file))
    assert (asked.to, asked.model, asked.steps) == ("v3", "small", [AskedStep(5.0)])
    assert read_plan(file).with_limits(7, 60.0).steps == [AskedStep(1.0, 400, 86_400.0), AskedStep(25.0, 7, 60.0)]
    assert [step.weight_percent for step in Asked().with_limits(7, 0.0).steps] == [1.0, 5.0, 25.0, 50.0, 100.0]


@pytest.mark.parametrize(
    ("refusal", "placed"),
    [
        ("to_version: nobody announces worker v2 of small: accepted: v1", "3: to: nobody announces worker v2"),
        ("steps: step 2: 25 % after 1 %: accepted: each above the one before", "8: steps: step 2: 25 % after 1 %"),
        ("steps: none: accepted: at least one", "6: steps: none"),
        ("tolerances.errors: 0.01: accepted: at least 0.02", "9: tolerances.errors: 0.01: accepted"),
        ("error_rate: 0.02: accepted: above 0, at most 0.01", "10: errorRate: 0.02: accepted"),
        ("rate: no traffic was observed yet: accepted: --rate 2/s", ""),
        ("small-1 of small is running at 1 %: one rollout of a model at a time", ""),
    ],
)
def test_what_is_refused_later_is_placed_too(tmp_path, refusal, placed):
    """The control plane knows no file: its refusal gets the line that it is about, if there is one, and its key."""
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD)
    assert read_plan(file).placed(refusal).startswith(f"{file}:{placed}" if placed else refusal)


def test_a_golden_set_that_a_file_names_is_missed_there(tmp_path):
    """With file and line; a flag's is missed at the flag."""
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD)
    with pytest.raises(
        UsageProblem, match=rf"^{file}:14: golden: '.*golden.jsonl': No such file or directory: accepted"
    ):
        read_plan(file).message("ann")
    with pytest.raises(UsageProblem, match=r"^--golden: 'nowhere': No such"):
        Asked(golden=Path("nowhere")).over(read_plan(file)).message("ann")


def test_what_a_flag_says_is_not_blamed_on_the_file(tmp_path):
    """Only what the file still says has a line in it."""
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD)
    asked = Asked(to="v3", steps=[AskedStep(5.0)]).over(read_plan(file))
    for refusal in ("to_version: 'v3': no", "steps: step 1: no"):
        assert asked.placed(refusal) == refusal
    assert asked.placed("model: 'small': no") == f"{file}:1: model: 'small': no"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{file}: empty; accepted: the keys model, service"),
        ("model: [", "{file}:1: not YAML: "),
        ("model: small\nsevice: worker\n", "{file}:2: sevice: unknown key (did you mean 'service'?); accepted: "),
        ("service: database\n", "{file}:1: service: 'database' is not accepted; accepted: one of worker, tokenizer"),
        ("model: 3\n", "{file}:1: model: 3 is not accepted; accepted: text; quote it"),
        ("steps: 5%\n", "{file}:1: steps: '5%' is not accepted; accepted: a list"),
        ("steps:\n  - 5%\n  - 120%\n", "{file}:3: steps.1: '120%' is not accepted; accepted: above 0%, at most 100%"),
        ("steps:\n  - {weight: five}\n", "{file}:2: steps.0.weight: 'five' is not accepted; accepted: a share such as"),
        ("steps:\n  - {minSamples: 5}\n", "{file}:2: steps.0: no 'weight'; accepted: a share such as 5%"),
        ("steps: []\n", "{file}:1: steps: an empty list; accepted: at least one"),
        ("steps:\n  - weight: 5%\n    minSamples: 99999999999999999999\n", "{file}:3: steps.0.minSamples: 9999999999"),
        ("steps:\n  - weight: 5%\n    maxDuration: 0.4s\n", "{file}:3: steps.0.maxDuration: '0.4s' is not accepted"),
        (
            "steps:\n  - weight: 5%\n    minSamples: 0\n",
            "{file}:3: steps.0.minSamples: 0 is not accepted; accepted: an int",
        ),
        ("steps:\n  - weight: 5%\n    minSamples: -1\n", "{file}:3: steps.0.minSamples: -1 is not accepted"),
        ("steps:\n  - weight: 5%\n    maxDuration: soon\n", "{file}:3: steps.0.maxDuration: 'soon' is not accepted"),
        ("steps:\n  - weight: 5%\n    maxTime: 5h\n", "{file}:3: steps.0.maxTime: unknown key"),
        ("tolerances: 5\n", "{file}:1: tolerances: 5 is not accepted"),
        ("tolerances:\n  errors: lots\n", "{file}:2: tolerances.errors: 'lots' is not accepted; accepted: a number"),
        ("baseline: perhaps\n", "{file}:1: baseline: 'perhaps' is not accepted; accepted: true or false"),
        ("onScarce: panic\n", "{file}:1: onScarce: 'panic' is not accepted; accepted: one of wait, ask, abort"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(tmp_path, text, said):
    """One line, and what is accepted."""
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(UsageProblem) as refused:
        read_plan(file)
    assert str(refused.value).startswith(said.format(file=file))
    assert "\n" not in str(refused.value)
