"""An environment for each judge, made once under ``build/judges/``: what clients install, at the version named here.

Published models come the same way, as packages. Knows pip, nothing about what is judged.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "judges"
INSTALL_S = 1200.0


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one client in it; `run` makes it where it is absent.

    Attributes:
        name: its folder under ``build/judges/``.
        requirements: what pip installs, with its own flags.
    """

    name: str
    requirements: tuple[str, ...]

    def run(self, *command: str, env: dict[str, str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
        """Run a program of it, ``python`` or one that it brought; returns when it has ended."""
        self._make()
        program, *arguments = command
        return subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=BUILD / self.name,  # where some leave files of their own
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def folder_of(self, package: str) -> Path:
        """Where a package of it lies; makes the environment where it is absent."""
        code = f"from importlib.util import find_spec; print(find_spec({package!r}).origin)"
        found = self.run("python", "-c", code, env={}, timeout_s=60)
        found.check_returncode()
        return Path(found.stdout.strip()).parent

    @property
    def _bin(self) -> Path:
        return BUILD / self.name / "venv" / "bin"

    def _make(self) -> None:
        """Install what it names; a note of that beside it tells whether it did."""
        note, wanted = BUILD / self.name / "installed.txt", "\n".join(self.requirements)
        if note.exists() and note.read_text(encoding="utf-8") == wanted:
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self._bin.parent)], check=True)
        pip = [str(self._bin / "python"), "-m", "pip", "install", "--quiet", *self.requirements]
        subprocess.run(pip, check=True, timeout=INSTALL_S)
        note.write_text(wanted, encoding="utf-8")
