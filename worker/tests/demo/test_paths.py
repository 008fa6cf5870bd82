"""Where the demo models are found, and what is said when they are not."""

import subprocess
import sys

import pytest
from serin_worker.demo import paths

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from serin_worker.demo.paths import model_folder
print(model_folder("small", "v2"))
"""


def test_a_checkout_serves_its_own_models():
    """Every version is a folder with a model in it."""
    for version in paths.FAMILIES["small"]:
        assert (paths.model_folder("small", version) / "model.safetensors").is_file()


def test_asking_needs_neither_torch_nor_transformers():
    """The command-line tool asks for the folder without loading an engine."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(paths.model_folder("small", "v2")), done.stderr


def test_an_unknown_version_lists_those_there_are():
    """The sentence names what can be asked for."""
    with pytest.raises(paths.DemoModelMissing, match="small v1, small v2"):
        paths.model_folder("small", "v9")


def test_missing_files_name_both_places(monkeypatch, tmp_path):
    """The sentence says where it looked and how to make the model."""
    monkeypatch.setattr(paths, "_PACKAGED", tmp_path / "a")
    monkeypatch.setattr(paths, "_CHECKED_OUT", tmp_path / "b")
    with pytest.raises(paths.DemoModelMissing, match=r"demo\.train --out .*b"):
        paths.model_folder("small", "v2")
