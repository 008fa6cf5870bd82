"""Every distribution builds a wheel that has what it needs, no more, and says what it depends on."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from harness.distributions import ROOMS, ROOT, Distribution
from packaging.requirements import Requirement

PROVIDED_BY_PYTHON_PACKAGE = {"google": {"protobuf", "googleapis-common-protos"}}
MODELS = ("serin_cli/models/", "serin_worker/demo/models/")
MODULE_OF_OUR_OWN = re.compile(r"serin(_\w+)?$|xds$")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of each room, built from a copy so that nothing is left behind in the clone."""
    copy = tmp_path_factory.mktemp("clone")
    out = tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "deploy" / "models", copy / "deploy" / "models")
    for name in ("LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    built = {}
    for room in ROOMS:
        ignored = shutil.ignore_patterns("tests", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / room, copy / room, ignore=ignored)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
        subprocess.run([*command, str(copy / room)], check=True, capture_output=True, timeout=120)
        built[room] = next(out.glob(f"serin_{room.replace('-', '_')}-*.whl"))
    return built


@pytest.mark.parametrize("room", ROOMS)
def test_a_wheel_has_its_package_whole_and_nothing_else(wheels: dict[str, Path], room: str):
    """Every source file is in it, with its data and its type marker; no tests, no caches, no other package."""
    distribution = Distribution(room)
    with zipfile.ZipFile(wheels[room]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    content = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in content} == set(distribution.packages)
    sources = {
        str(path.relative_to(distribution.folder / "src"))
        for package in distribution.packages
        for path in (distribution.folder / "src" / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources - content == set(), "files that the wheel leaves out"
    added = content - sources
    assert {name for name in added if not name.startswith(MODELS)} == set(), "files that no source is of"
    assert any(name.endswith("/py.typed") for name in content)
    assert not [name for name in names if name.endswith((".pyc", ".so")) or "/tests/" in name]


@pytest.mark.parametrize("room", ROOMS)
def test_a_wheel_says_what_it_is(wheels: dict[str, Path], room: str):
    """Name, static version, Python, licence; each program it promises can be imported."""
    with zipfile.ZipFile(wheels[room]) as wheel:
        metadata_name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(metadata_name).decode())
    assert metadata["Name"] == f"serin-{room}"
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["Version"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Summary"]


@pytest.mark.parametrize("room", ROOMS)
def test_everything_imported_is_declared(room: str):
    """A wheel installed alone finds each package that its sources import; what an extra brings counts as declared."""
    distribution = Distribution(room)
    extras = distribution.project.get("optional-dependencies", {})
    lines = [*distribution.project["dependencies"], *(line for extra in extras.values() for line in extra)]
    declared = {Requirement(line).name.lower().replace("_", "-") for line in lines}
    providers = packages_distributions()
    missing = {}
    for module in sorted({name.split(".")[0] for name in distribution.imports()}):
        if module in sys.stdlib_module_names or module in distribution.packages:
            continue
        found = PROVIDED_BY_PYTHON_PACKAGE.get(module) or set(providers.get(module, [module]))
        if MODULE_OF_OUR_OWN.match(module):
            found = {"serin-protos" if module in ("serin", "xds") else module.replace("_", "-")}
        if not {name.lower().replace("_", "-") for name in found} & declared:
            missing[module] = sorted(found)
    assert missing == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_distribution_keeps_a_changelog_of_its_version(room: str):
    """The version in pyproject.toml is the newest one in CHANGELOG.md."""
    distribution = Distribution(room)
    text = (distribution.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    assert distribution.project["version"] in text


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_wheels_run_outside_the_clone(wheels: dict[str, Path], tmp_path: Path):
    """In an empty virtual environment, from another folder: they install, and the demo answers."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *map(str, wheels.values())], check=True, timeout=1500)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [str(python), "-m", "serin_cli", "demo"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
