"""Puts the demo model into the wheel: outside a clone `serin up` has no other place to find one.

Everything else about the distribution is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = Path("models", "small", "v2")


class BuildWithModel(build_py):
    """Copies `deploy/models/small/v2` into the package as it is built; an editable install finds it in the clone."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        source = Path(__file__).resolve().parent.parent / "deploy" / MODEL
        target = Path(self.build_lib) / "serin_cli" / MODEL
        if not (source / "config.json").is_file():
            raise SystemExit(f"{source}: no demo model; build serin-cli inside a clone of the whole repository")
        shutil.copytree(source, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModel})
