"""`serin config`: check, compare and apply a `serin.yaml`."""

import argparse
import asyncio
import json
from pathlib import Path

from serin_control.config import MeshConfig, diff, json_schema, parse_config
from serin_mesh.errors import MeshError, Reason

from serin_cli.arguments import add_state, state_path
from serin_cli.config_text import check_guards, check_models, read_config
from serin_cli.errors import CliError, UsageProblem
from serin_cli.local.model_folder import ModelFolders
from serin_cli.local.registry import ControlPlane
from serin_cli.models.registry import ModelRegistry
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say

DESCRIPTION = """\
Check a serin.yaml, compare it with what is in force, or put it into force. Applying is all or nothing: what is wrong is
said with file, line and key, and the old configuration keeps serving.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="check|diff|apply|schema", required=True)
    for name, summary in (
        ("check", "say whether a file would be accepted"),
        ("diff", "say what applying it would change; exit code 1: something"),
        ("apply", "put it into force"),
    ):
        action = actions.add_parser(name, help=summary)
        action.add_argument("file", nargs="?", type=Path, default=Path("serin.yaml"), help="default: serin.yaml")
        add_state(action)
    add_state(actions.add_parser("schema", help="print the JSON Schema of serin.yaml, for editors"))


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    if arguments.action == "schema":
        print(json.dumps(json_schema(), indent=2))
        return 0
    state = StateDir(state_path(arguments.state))
    fetch = ModelFolders(ModelRegistry(state)).fetch
    text, config = read_config(arguments.file)
    if arguments.action == "check":
        check_models(arguments.file, text, fetch)
        check_guards(arguments.file, text)
        say(f"{arguments.file}: good; models: {', '.join(config.models)}")
        return 0
    address = read_record(state).control
    try:
        if arguments.action == "diff":
            return asyncio.run(_diff(address, config))
        check_models(arguments.file, text, fetch)
        check_guards(arguments.file, text)
        return asyncio.run(_apply(address, text))
    except MeshError as error:
        if error.reason is Reason.CONFIG_INVALID:
            raise UsageProblem(f"{arguments.file}: {error}") from error
        raise CliError(f"the control plane at {address} did not do it: {error}") from error


async def _diff(address: str, config: MeshConfig) -> int:
    async with ControlPlane(address) as control:
        lines = diff(parse_config((await control.config()).yaml), config)
    for line in lines or ["nothing changes"]:
        say(line)
    return 1 if lines else 0


async def _apply(address: str, text: str) -> int:
    async with ControlPlane(address) as control:
        answer = await control.apply(text)
    for line in answer.changes or ["nothing changes"]:
        say(line)
    print(f"revision {answer.revision} is in force; `serin status` shows processes come and go")
    return 0
