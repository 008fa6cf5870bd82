"""`serin remove`: takes a version of a service out of the mesh on this machine."""

import argparse
import asyncio

from serin_control.config import MeshConfig, parse_config
from serin_mesh.errors import MeshError

from serin_cli.arguments import add_state, integer, state_path
from serin_cli.errors import CliError, NoMesh, UsageProblem
from serin_cli.local.additions import MODEL_SERVICES, Additions, AdditionsFile, Which
from serin_cli.local.arrival import await_absence
from serin_cli.local.naming import add_version_flags, which_version
from serin_cli.local.registry import ControlPlane
from serin_cli.local.releases import num_declared, taken_away
from serin_cli.local.traffic import Traffic, traffic_of
from serin_cli.record import MeshRecord, read_record
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Drain a version and stop its processes: one that `serin add` added, or a declared one (which then is not started here
until `serin add` brings it back). Refused while it carries traffic or is part of a rollout, unless --force.

  serin remove worker --model small --version v1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_version_flags(parser)
    parser.add_argument("--force", action="store_true", help="also if it carries traffic; running answers are finished")
    parser.add_argument(
        "--wait", type=integer(1, 86_400), default=60, metavar="SECONDS", help="how long to wait (default: 60)"
    )
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look whether it may go, write that down, wait until it is gone."""
    which = which_version("serin remove", arguments)
    state = StateDir(state_path(arguments.state))
    file = AdditionsFile(state.additions)
    record = _running(state)
    if record is None:
        return _while_down(which, file, state)
    declared, traffic = asyncio.run(_look(record.control, which, arguments.force))
    if traffic.reason and not arguments.force:
        raise CliError(f"{which} {traffic.reason}; {traffic.remedy}, or --force removes it nevertheless")
    file.change(lambda kept: _without(kept, which, declared))
    await_absence(state, which, arguments.wait)
    print(_said(which, traffic))
    return 0


def _running(state: StateDir) -> MeshRecord | None:
    try:
        return read_record(state)
    except NoMesh:
        if not state.additions.exists():
            raise
        return None


def _while_down(which: Which, file: AdditionsFile, state: StateDir) -> int:
    if file.read().find(which) is None:
        raise NoMesh(f"{which} was not added on {state.root}; what is declared is taken away while the mesh runs")
    file.change(lambda kept: kept.without(which))
    print(f"removed {which}; the next `serin up` does not start it, unless serin.yaml declares it")
    return 0


async def _look(address: str, which: Which, force: bool) -> tuple[MeshConfig | None, Traffic]:
    """What is declared, and what the version carries; nothing where the control plane is gone and that is accepted."""
    try:
        async with ControlPlane(address) as control:
            traffic = traffic_of(which, await control.lanes(), await control.rollouts())
            return parse_config((await control.config()).yaml), traffic
    except MeshError as error:
        if force:
            return None, Traffic()
        unknown = f"the control plane at {address} does not say whether {which} carries traffic"
        raise CliError(f"{unknown}: {error}; wait, or say --force") from error


def _without(kept: Additions, which: Which, declared: MeshConfig | None) -> Additions:
    if kept.find(which) is None:
        is_declared = declared is not None and num_declared(declared, which) > 0
        if which.service not in MODEL_SERVICES and is_declared:
            stays = "an added one; the declared one stays"
            raise UsageProblem.setting("serin remove: --version", which.version, stays)
        if which in kept.withheld:
            gone = f"one that is there; {which} was removed"
            raise UsageProblem.setting("serin remove: --version", which.version, gone)
        if not is_declared:
            raise UsageProblem.setting("serin remove: --version", which.version, _present(kept, which, declared))
    return taken_away(declared, kept, which)


def _present(kept: Additions, which: Which, declared: MeshConfig | None) -> str:
    added = [
        other.which.version
        for other in kept.added
        if (other.which.service, other.which.model) == (which.service, which.model)
    ]
    model = declared.models.get(which.model) if declared is not None else None
    there = [release.version for release in model.releases()] if model is not None else []
    return ", ".join(dict.fromkeys([*there, *added])) or "one that was added; none was"


def _said(which: Which, traffic: Traffic) -> str:
    forced = f"; it {traffic.reason}" if traffic.reason else ""
    note = f"; {traffic.note}" if traffic.note else ""
    return f"removed {which}{forced}{note}; `serin add {which.arguments} …` brings it back"
