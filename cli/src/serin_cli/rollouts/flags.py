"""Flags that say what a rollout should be. Knows nothing about running meshes."""

import argparse
from pathlib import Path

from serin_cli.arguments import integer, model_name, number
from serin_cli.rollouts.asked import INTENTS, MOST_SAMPLES, POLICIES, SERVICES, Asked, AskedStep
from serin_cli.rollouts.durations import duration_flag, shares_flag
from serin_cli.rollouts.plan_file import read_plan


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `start` and `plan`."""
    parser.add_argument("--model", type=model_name, metavar="MODEL", help="the model")
    parser.add_argument("--service", choices=list(SERVICES), help="the service that moves")
    parser.add_argument("--to", metavar="VERSION", help="the version it moves to; it must be announced already")
    parser.add_argument(
        "--intent",
        choices=list(INTENTS),
        help="same: answers must not change; better: they may, not for the worse",
    )
    parser.add_argument(
        "--also", choices=("tokenizer", "worker"), action="append", default=[], help="moves together with it"
    )
    parser.add_argument(
        "--steps", type=shares_flag, metavar="SHARES", help="of new sessions (default: 1%%,5%%,25%%,50%%,100%%)"
    )
    parser.add_argument(
        "--min-samples", type=integer(1, MOST_SAMPLES), metavar="N", help="fewest canary requests a step (default: 50)"
    )
    parser.add_argument(
        "--max-duration",
        type=duration_flag,
        metavar="TIME",
        help="most time of a step before it pauses (default: 24h)",
    )
    parser.add_argument(
        "--tolerance", type=_tolerance, action="append", default=[], metavar="METRIC=X", help="largest accepted change"
    )
    parser.add_argument(
        "--error-rate", type=number(0.0001, 0.2), metavar="X", help="share of false verdicts (default: 0.01)"
    )
    parser.add_argument("--on-scarce", choices=list(POLICIES), help="when samples do not come (default: wait)")
    parser.add_argument(
        "--baseline", action="store_true", help="compare with VERSION-baseline, the old version in fresh processes"
    )
    parser.add_argument("--golden", type=Path, metavar="FILE", help="questions with known answers, JSON lines")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="all of this as YAML; flags come before it")
    parser.add_argument(
        "--accept-weak", action="store_true", help="start although a tolerance is finer than the traffic can show"
    )


def asked_from(arguments: argparse.Namespace) -> Asked:
    """What the flags ask for, over what the plan file does.

    Raises:
        UsageProblem: the plan file is wrong, with file and line.
    """
    said = Asked(
        model=arguments.model or "",
        service=arguments.service or "",
        to=arguments.to or "",
        also=arguments.also,
        intent=arguments.intent or "",
        steps=[AskedStep(weight) for weight in arguments.steps or ()],
        tolerances=dict(arguments.tolerance),
        error_rate=arguments.error_rate or 0.0,
        on_scarce=arguments.on_scarce or "",
        baseline=arguments.baseline,
        golden=arguments.golden,
        accept_weak=arguments.accept_weak,
    )
    asked = said.over(read_plan(arguments.plan)) if arguments.plan is not None else said
    return asked.with_limits(arguments.min_samples or 0, arguments.max_duration or 0.0)


def _tolerance(text: str) -> tuple[str, float]:
    metric, equals, value = text.partition("=")
    try:
        if metric and equals and float(value) > 0:
            return metric, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: a metric and a number above 0, such as errors=0.01")
