"""The `serin` command: finds the command that is meant, runs it, prints its refusal as one line."""

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from serin_mesh.one_line import escaped

from serin_cli.arguments import Parser, state_path
from serin_cli.errors import CliError, UsageProblem
from serin_cli.state_dir import StateDir

COMMANDS = {
    "up": "start a mesh on this machine",
    "env": "print what a shell needs to talk to it",
    "status": "say what runs and how it is",
    "chat": "talk to a model",
    "logs": "show what the processes logged",
    "explain": "say what became of a request",
    "down": "drain and stop the mesh",
    "add": "start a further version of a service beside the declared ones",
    "remove": "take a version of a service out of the mesh",
    "model": "keep versions of models",
    "rollout": "move a service to another version, step by step, judged",
    "rollback": "give a model's traffic back at once",
    "freeze": "forbid rollouts to start or move on",
    "experiment": "split traffic between two versions and compare what callers say",
    "key": "make, list and revoke API keys",
    "tenant": "declare organizations and projects, and what limits them",
    "usage": "show what was used and what it costs",
    "audit": "show who changed what, and verify that the log is intact",
    "cascade": "make the classifier of a cascade",
    "config": "check, compare and apply a serin.yaml",
    "certs": "make certificates for services that leave this machine",
    "demo": "start a mesh of its own, ask the demo model, stop it again",
    "version": "print the versions of all parts",
}
_COMMAND = re.compile(r"`(serin (?![^`]*--state)[^`]*)`")
DESCRIPTION = """\
Serin serves language models as a mesh of services.

  serin up                  start a mesh here, with the demo model
  eval "$(serin env)"       point the OpenAI and Anthropic SDKs of this shell at it
  serin chat                talk to it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except CliError as error:
        print(_one_line(str(error)), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name = "version" if arguments[0] == "--version" else arguments[0]
    if name not in COMMANDS:
        raise UsageProblem(f"serin: {name!r}: accepted: {', '.join(COMMANDS)}")
    # Only the command that is meant is imported: `serin env` has no time to load what `serin up` needs.
    module = importlib.import_module(f"serin_cli.commands.{name}")
    parser = Parser(prog=f"serin {name}", description=module.DESCRIPTION)
    module.configure(parser)
    parser.set_defaults(argv=arguments)
    parsed = parser.parse(arguments[1:])
    try:
        code: int = module.run(parsed)
    except CliError as error:
        print(_one_line(_typed_here(str(error), getattr(parsed, "state", None))), file=sys.stderr)
        return error.exit_code
    return code


def _overview() -> str:
    rows = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
    return f"usage: serin COMMAND [--help]\n\n{DESCRIPTION}\ncommands:\n{rows}"


def _typed_here(text: str, flag: Path | None) -> str:
    """A line in which commands can be typed as they stand: they mean the state directory that this one was given."""
    state = StateDir(state_path(flag))
    return _COMMAND.sub(lambda found: f"`{state.command(found[1])}`", text)


def _one_line(text: str) -> str:
    return escaped(" ".join(text.split()))


if __name__ == "__main__":
    sys.exit(main())
