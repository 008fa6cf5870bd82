"""`serin certs`: a local authority, and an identity for each service that leaves this machine."""

import argparse
from pathlib import Path

from serin_mesh.authority import Authority

from serin_cli.arguments import add_state, host, integer, model_name, state_path
from serin_cli.certificates import authority_in
from serin_cli.errors import CliError, UsageProblem
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Make certificates for services that are reached from other machines: there they talk mutual TLS or not at all. The
authority is made once and used again, so running this later renews; services take new files up without a restart.

  serin certs --out certs --model small --host worker-1.internal
  python -m serin_worker --tls-dir certs/worker ...

Keep ca-key.pem off the servers.
"""
SERVICES = ("gateway", "tokenizer", "worker", "cache", "control", "edge", "cli")
NAMED_BY_MODEL = ("tokenizer", "worker")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: certs in the state directory)"
    )
    parser.add_argument(
        "--service",
        action="append",
        choices=SERVICES,
        metavar="NAME",
        help=f"only this: {', '.join(SERVICES)}; repeatable",
    )
    parser.add_argument(
        "--model", action="append", type=model_name, default=[], metavar="NAME", help="a model they serve; repeatable"
    )
    parser.add_argument(
        "--host",
        action="append",
        type=host,
        default=[],
        metavar="HOST",
        help="a DNS name or address that others dial; repeatable",
    )
    parser.add_argument(
        "--days", type=integer(1, 3650), default=90, metavar="N", help="how long they last (default: 90)"
    )
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make or load the authority, issue the identities."""
    folder: Path = arguments.out or StateDir(state_path(arguments.state)).root / "certs"
    try:
        authority, is_new = _authority(folder)
        print(f"{'made' if is_new else 'used'} the authority {folder / 'ca.pem'}")
        for service in arguments.service or SERVICES:
            models = arguments.model if service in NAMED_BY_MODEL else []
            authority.issue(service, folder / service, models=models, hosts=arguments.host, days=arguments.days)
            print(f"{folder / service}: {service}, {arguments.days} days")
    except OSError as error:
        raise CliError(
            f"{error.filename or folder}: {error.strerror}; name a directory that can be written with --out"
        ) from error
    return 0


def _authority(folder: Path) -> tuple[Authority, bool]:
    try:
        return authority_in(folder)
    except ValueError as error:
        accepted = f"a directory without ca-key.pem, or with a good one ({error})"
        raise UsageProblem.setting("serin certs: --out", str(folder), accepted) from error
