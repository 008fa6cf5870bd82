"""Where the demo models lie: in a checkout under ``deploy/models``, in an installed wheel beside this package.

Imports nothing but the standard library, so that any program may ask. Knows nothing about what is in the folders.
"""

from pathlib import Path

FAMILIES = {"small": ("v1", "v2"), "mini": ("v1",)}
"""Versions of each demo model, oldest first."""

_PACKAGED = Path(__file__).parent / "models"
_CHECKED_OUT = Path(__file__).parents[4] / "deploy" / "models"


class DemoModelMissing(LookupError):
    """No demo model of that name or version exists, or its files are not where they belong."""


def model_folder(family: str = "small", version: str = "v2") -> Path:
    """Folder of a demo model, ready to load.

    Raises:
        DemoModelMissing: the family or version is not known, or neither place holds it.
    """
    if version not in FAMILIES.get(family, ()):
        known = ", ".join(f"{name} {each}" for name, versions in FAMILIES.items() for each in versions)
        raise DemoModelMissing(f"no demo model {family} {version}; there are: {known}")
    places = [root / family / version for root in (_PACKAGED, _CHECKED_OUT)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise DemoModelMissing(
        f"demo model {family} {version} is neither in {places[0]} nor in {places[1]}; "
        f"make it with: python -m serin_worker.demo.train --out {places[1]} --family {family} --version {version}"
    )
