"""`serin rollout`: start, watch and end rollouts."""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from serin.control.v1 import rollout_pb2

from serin_cli.arguments import integer, model_name
from serin_cli.errors import CliError, UsageProblem
from serin_cli.rollouts import shown
from serin_cli.rollouts.acting import act_on
from serin_cli.rollouts.asked import SAME, Asked
from serin_cli.rollouts.client import ControlPlanes
from serin_cli.rollouts.durations import rate_flag
from serin_cli.rollouts.flags import add_asked, asked_from
from serin_cli.rollouts.offline import abort_offline, add_offline
from serin_cli.rollouts.reached import add_acting, add_reached, reached
from serin_cli.terminal import say, screen, table

DESCRIPTION = """\
Move a service of a model to another version, step by step. The mesh compares both versions on errors, speed and
answers, and promotes or takes back by itself; answers that run are never lost to it.

  serin rollout plan  --model small --service worker --to v2 --intent same --rate 2/s
  serin rollout start --model small --service worker --to v2 --intent same
  serin rollout watch small-1
"""
_ACTIONS = {
    "pause": (rollout_pb2.ROLLOUT_ACTION_PAUSE, ("paused",), "stay at this step"),
    "resume": (rollout_pb2.ROLLOUT_ACTION_RESUME, ("running", "waiting"), "go on; the step's time begins again"),
    "promote": (rollout_pb2.ROLLOUT_ACTION_PROMOTE, ("promoted",), "give the new version everything now"),
    "abort": (rollout_pb2.ROLLOUT_ACTION_ABORT, ("aborted",), "give the old version everything back now"),
}
"""What people do, the states that it leads to, and what it is for."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="say what a rollout would need: samples, hours, smallest change it can see")
    add_asked(plan)
    plan.add_argument("--rate", type=rate_flag, metavar="N/s", help="new sessions (default: as observed)")
    plan.add_argument("--json", action="store_true", help="print JSON")
    add_reached(plan)
    start = actions.add_parser("start", help="start one; prints its id alone on the last line")
    add_asked(start)
    mode = start.add_mutually_exclusive_group()
    mode.add_argument("--auto", action="store_true", help="the judge promotes (default)")
    mode.add_argument("--manual", action="store_true", help="a person promotes; bad versions are still taken back")
    add_acting(start)
    for name, summary in (
        ("watch", "show one until it has ended: both arms, verdicts, what comes next"),
        ("get", "show one as it is now"),
        ("explain", "say in sentences what happened to one"),
    ):
        action = actions.add_parser(name, help=summary)
        action.add_argument("id", metavar="ID")
        if name == "get":
            action.add_argument("--json", action="store_true", help="print JSON")
        add_reached(action)
    for name, (*_, summary) in _ACTIONS.items():
        action = actions.add_parser(name, help=summary)
        action.add_argument("id", metavar="ID")
        add_acting(action)
        if name == "abort":
            add_offline(action)
    listing = actions.add_parser("list", help="list rollouts, newest first")
    listing.add_argument("--model", type=model_name, help="only this model's")
    history = actions.add_parser("history", help="list who did what, newest first")
    history.add_argument("id", metavar="ID", nargs="?", default="", help="only of this rollout")
    for action in (listing, history):
        action.add_argument("--limit", type=integer(1, 1000), default=50, metavar="N", help="most lines (default: 50)")
        action.add_argument("--json", action="store_true", help="print JSON")
        add_reached(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    if arguments.action == "abort" and arguments.offline:
        return asyncio.run(abort_offline(arguments))
    return asyncio.run(_reach(arguments))


async def _reach(arguments: argparse.Namespace) -> int:
    does: dict[str, Callable[[argparse.Namespace, ControlPlanes], Awaitable[int]]] = {
        "plan": _plan,
        "start": _start,
        "watch": _watch,
        "get": _get,
        "explain": _explain,
        "list": _list,
        "history": _history,
    }
    async with reached(arguments) as control:
        return await does.get(arguments.action, _act)(arguments, control)


async def _plan(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    asked = asked_from(arguments)
    if not asked.intent:
        asked = replace(asked, intent=SAME)
    request = rollout_pb2.PlanRolloutRequest(start=asked.message(""), sessions_per_second=arguments.rate or 0.0)
    answer = await _call(control, "PlanRollout", request, asked)
    if arguments.json:
        steps = [
            {
                "weight": round(one.step.weight_percent, 4),
                "samples": one.needed_sample_count,
                "hours": one.seconds / 3600,
                "detectable": {name: least if math.isfinite(least) else None for name, least in one.detectable.items()},
            }
            for one in answer.steps
        ]
        found = {"sessions_per_second": answer.sessions_per_second, "steps": steps, "note": answer.note}
        print(json.dumps(found, indent=2))
        return 0
    last = "in its time it can see"
    rows = table("step", "canary requests", "hours", last, wraps=(last,))
    for one in answer.steps:
        least = ", ".join(f"{metric} {_least(value)}" for metric, value in sorted(one.detectable.items()))
        late = one.seconds > one.step.max_seconds
        hours = f"{one.seconds / 3600:.3g}" + (f" (more than its {one.step.max_seconds / 3600:.3g})" if late else "")
        rows.add_row(f"{one.step.weight_percent:.4g} %", f"{one.needed_sample_count:,}", hours, least)
    at = screen()
    at.show(f"at {answer.sessions_per_second:.3g} new sessions/s, if the new version is as good as the old:")
    at.show(rows)
    if answer.note:
        at.show(f"note: {answer.note}")
    return 0


def _least(detectable: float) -> str:
    """The smallest change that a step can see, in its metric's unit."""
    if math.isinf(detectable):
        return "none"
    return f"{detectable:.2g}" if detectable < 100 else f"{detectable:,.0f}"


async def _start(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    asked = asked_from(arguments)
    request = asked.message(arguments.actor)
    request.manual = arguments.manual or (asked.manual and not arguments.auto)
    answer = await _call(control, "StartRollout", request, asked)
    say(f"{answer.reason or 'started'}; `serin rollout watch {answer.rollout_id}` shows it", sys.stderr)
    say(answer.rollout_id)
    return 0


async def _watch(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    at = screen()
    last: rollout_pb2.Rollout | None = None
    if at.is_terminal:
        with at.redrawn(auto_refresh=False) as live:
            async for last in control.watch(arguments.id, _say):
                live.update(shown.picture(last), refresh=True)
    else:
        line = ""
        async for last in control.watch(arguments.id, _say):
            if shown.plain_line(last) != line:
                line = shown.plain_line(last)
                say(line)
    return 0 if last is not None and shown.state_of(last) == "promoted" else 1


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


async def _get(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    rollout = await _one(arguments.id, control)
    if arguments.json:
        print(json.dumps(shown.document(rollout), indent=2))
    else:
        screen().show(shown.picture(rollout))
    return 0


async def _explain(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    for line in shown.explanation(await _one(arguments.id, control), time.time()):
        say(line)
    return 0


async def _act(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    action, wanted, _ = _ACTIONS[arguments.action]
    request = rollout_pb2.ActOnRolloutRequest(
        rollout_id=arguments.id,
        action=action,
        reason=arguments.reason,
        actor=arguments.actor,
    )
    answer = await act_on(control, request)
    if answer.effective:
        say(f"{arguments.id} is {shown.state_of(answer.rollout)}: {shown.why(answer.rollout)}")
    elif shown.state_of(answer.rollout) in wanted:
        say(f"{arguments.id}: no effect: {answer.rollout.reason}")
    else:
        raise CliError(f"{arguments.id}: no effect: {answer.rollout.reason}")
    return 0


async def _list(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    request = rollout_pb2.ListRolloutsRequest(model=arguments.model or "", page_size=arguments.limit)
    rollouts = (await control.call("ListRollouts", request)).rollouts
    if arguments.json:
        print(json.dumps([shown.document(rollout) for rollout in rollouts], indent=2))
        return 0
    rows = table("id", "model", "service", "from", "to", "state", "at", "started", "by", "")
    for one in rollouts:
        rows.add_row(
            one.rollout_id,
            one.model,
            shown.services_of(one),
            one.from_version,
            one.to_version,
            shown.state_of(one),
            f"{one.weight_percent:.4g} %",
            shown.when(one.started_at),
            one.started_by,
            one.reason,
        )
    screen().show(rows if rollouts else "no rollouts yet; `serin rollout start --help` says how to start one")
    return 0


async def _history(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    request = rollout_pb2.ListActsRequest(rollout_id=arguments.id, page_size=arguments.limit)
    acts = (await control.call("ListActs", request)).acts
    if arguments.json:
        print(json.dumps([shown.act_document(act) for act in acts], indent=2))
        return 0
    rows = table("at", "rollout", "what", "by", "")
    for act in acts:
        who = f"{act.actor} ({act.identity})" if act.identity else act.actor
        rows.add_row(shown.when(act.at), act.rollout_id or "-", act.what, who, act.reason)
    screen().show(rows if acts else "nothing was done yet")
    return 0


async def _call(control: ControlPlanes, method: str, request: Any, asked: Asked) -> Any:
    """Ask for a rollout; what is refused of a plan file is named with its line."""
    try:
        return await control.call(method, request)
    except UsageProblem as problem:
        raise UsageProblem(asked.placed(str(problem))) from problem


async def _one(rollout_id: str, control: ControlPlanes) -> rollout_pb2.Rollout:
    answer = await control.call("GetRollout", rollout_pb2.GetRolloutRequest(rollout_id=rollout_id))
    rollout: rollout_pb2.Rollout = answer.rollout
    return rollout
