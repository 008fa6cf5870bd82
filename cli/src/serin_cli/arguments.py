"""Flags of the command: parsed by argparse, refused in one line.

Knows the shapes of values, not what the commands do with them.
"""

import argparse
import contextlib
import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from serin_mesh.one_line import ONE_LINE, is_one_line

from serin_cli.errors import UsageProblem

STATE_VARIABLE = "SERIN_STATE"
DEFAULT_STATE = ".serin"
_BELOW_ZERO = re.compile(r"-\.?[0-9]")
"""Begins a value, ``-1h``, of which its flag says what is wrong; no flag begins so."""
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_MODEL_NAME = re.compile("[a-z0-9._-]{1,64}")
_VERSION_NAME = re.compile("[A-Za-z0-9._-]{1,64}")


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line: flag, value, what is accepted."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = _BELOW_ZERO

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage; the caller prints the one line."""
        raise UsageProblem(f"{self.prog}: {message.removeprefix('argument ')}")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, and name the nearest flag where one is unknown."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            raise UsageProblem(self._unknown(unknown[0]))
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r}: accepted: {', '.join(map(str, action.choices))}")

    def _unknown(self, argument: str) -> str:
        name = argument.split("=")[0]
        known = sorted(_long_flags(self))
        if not name.startswith("-"):
            return f"{self.prog}: {name!r}: accepted: no further argument"
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{self.prog}: {name}: unknown flag{hint}; accepted: {', '.join(known)}"


def _long_flags(parser: argparse.ArgumentParser) -> set[str]:
    flags: set[str] = set()
    for action in parser._actions:
        flags.update(flag for flag in action.option_strings if flag.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                flags |= _long_flags(inner)
    return flags


def integer(low: int, high: int) -> Callable[[str], int]:
    """Accept an integer from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if text.isascii() and text.lstrip("-").isdigit() and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: an integer from {low} to {high}")

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Accept a number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= float(text) <= high:
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: a number from {low:g} to {high:g}")

    return parse


def redis_url(text: str) -> str:
    """Accept the address of a Redis."""
    if text.startswith(("redis://", "rediss://", "unix://")):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: redis://, rediss:// or unix:// and an address")


def host(text: str) -> str:
    """Accept a DNS name or an IP address."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    if len(text) <= 253 and _DNS_NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: a DNS name or an IP address")


def model_name(text: str) -> str:
    """Accept a name that a model may have."""
    if _MODEL_NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: 1 to 64 of a-z 0-9 . _ -")


def version_name(text: str) -> str:
    """Accept a name that a version may have."""
    if _VERSION_NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: 1 to 64 of A-Z a-z 0-9 . _ -")


def tenant_name(text: str) -> str:
    """Accept a name that a project or an organization may have."""
    if _MODEL_NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: 1 to 64 of a-z 0-9 . _ -")


def one_line(text: str) -> str:
    """Accept text that a terminal shows as it stands."""
    if is_one_line(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: accepted: {ONE_LINE}")


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add the flag that every command takes."""
    parser.add_argument(
        "--state",
        type=_directory,
        metavar="DIR",
        help=f"state directory of the mesh (default: ${STATE_VARIABLE}, else {DEFAULT_STATE} here)",
    )


def _directory(text: str) -> Path:
    if not text:  # as `--state "$UNSET"` is; it would mean the current directory
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: a directory")
    return Path(text)


def state_path(flag: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory meant by the flag, the environment, or neither."""
    return flag if flag is not None else Path(environment.get(STATE_VARIABLE) or DEFAULT_STATE)
