"""Which control planes a command means: those it names, or those of the mesh on its state directory."""

import argparse
from pathlib import Path

from serin_cli.arguments import add_state, one_line, state_path
from serin_cli.record import read_record
from serin_cli.rollouts.client import ControlPlanes, whoami
from serin_cli.state_dir import StateDir


def add_reached(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which mesh is meant."""
    parser.add_argument(
        "--control", metavar="HOST:PORT,…", help="control planes of a mesh that `serin up` does not run here"
    )
    parser.add_argument("--tls-dir", type=Path, metavar="DIR", help="this command's certificate for them")
    add_state(parser)


def add_acting(parser: argparse.ArgumentParser) -> None:
    """Add the flags of everything that changes something."""
    parser.add_argument("--reason", type=one_line, default="", metavar="TEXT", help="why, for the history")
    parser.add_argument("--actor", type=one_line, default=whoami(), help="who acts, for the history (default: you)")
    add_reached(parser)


def reached(arguments: argparse.Namespace) -> ControlPlanes:
    """The control planes that are meant.

    Raises:
        NoMesh: none is named, and no mesh runs on the state directory.
    """
    if arguments.control:
        addresses = [part.strip() for part in arguments.control.split(",") if part.strip()]
        return ControlPlanes(addresses, arguments.tls_dir)
    return ControlPlanes([read_record(StateDir(state_path(arguments.state))).control], arguments.tls_dir)
