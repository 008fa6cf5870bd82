"""Puts the demo models into what is built: everything else about this distribution is in ``pyproject.toml``.

The models lie in ``deploy/models`` of the repository, outside this distribution's folder, once. Wheels and source
distributions get them as package data under ``serin_worker/demo/models``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import FileError

HERE = Path(__file__).resolve().parent
PACKAGED = Path("serin_worker", "demo", "models")
SOURCES = (HERE.parent / "deploy" / "models", HERE / "src" / PACKAGED)
"""In a checkout, and in an unpacked source distribution."""


def copy_models(target: Path) -> None:
    """Replace ``target`` by a copy of the demo models."""
    source = next((place for place in SOURCES if place.is_dir()), None)
    if source is None:
        raise FileError(f"the demo models are in none of: {', '.join(map(str, SOURCES))}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


class BuildWithModels(build_py):
    """Adds the models to a wheel; an editable installation finds them in the checkout."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            copy_models(Path(self.build_lib) / PACKAGED)


class PackWithModels(sdist):
    """Adds the models to a source distribution."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Lay out the files as usual, then copy."""
        super().make_release_tree(base_dir, files)
        copy_models(Path(base_dir) / "src" / PACKAGED)


setup(cmdclass={"build_py": BuildWithModels, "sdist": PackWithModels})
