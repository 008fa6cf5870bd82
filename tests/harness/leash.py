"""Commands that die with this process, also when it is killed and cleans nothing up."""

import os
import sys
from collections.abc import Sequence

import serin_cli.local.leash


def leashed(command: Sequence[str]) -> list[str]:
    """The command, run so that the system kills it when this process is gone."""
    return [sys.executable, "-S", "-E", serin_cli.local.leash.__file__, str(os.getpid()), *command]
