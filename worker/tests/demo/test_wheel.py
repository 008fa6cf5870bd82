"""Wheels and source distributions carry the demo models, though these lie outside the distribution's folder."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from serin_worker.demo import paths

REPOSITORY = Path(__file__).parents[3]
MODELS = {
    f"serin_worker/demo/models/{family}/{version}/{name}"
    for family, versions in paths.FAMILIES.items()
    for version in versions
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "manifest.json")
}


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a build reads, so that none of its leavings touch the repository."""
    worker = tmp_path / "worker"
    shutil.copytree(REPOSITORY / "worker" / "src", worker / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / "worker" / name, worker)
    shutil.copytree(REPOSITORY / "deploy" / "models", tmp_path / "deploy" / "models")
    return tmp_path


def _wheel(source, target):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(target),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_a_wheel_carries_the_models(checkout):
    """Installed outside a clone, the default model is there."""
    assert _wheel(checkout / "worker", checkout / "dist") >= MODELS


def test_a_source_distribution_carries_them_too(checkout):
    """A wheel can be built from the source distribution alone."""
    sdist = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    done = subprocess.run(
        [sys.executable, "-c", sdist], cwd=checkout / "worker", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (packed,) = checkout.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(checkout / "unpacked", filter="data")
    (source,) = (checkout / "unpacked").iterdir()
    assert _wheel(source, checkout / "dist") >= MODELS


def test_without_the_models_the_build_fails_and_says_so(checkout):
    """A wheel without its models would fail later and elsewhere."""
    shutil.rmtree(checkout / "deploy")
    with pytest.raises(AssertionError, match="the demo models are in none of"):
        _wheel(checkout / "worker", checkout / "dist")
