"""Model folders: what is refused before a process is started."""

import json
import shutil

import pytest
from serin_cli.errors import ModelRefused, StartRefused
from serin_cli.local.model_folder import ModelFolders, check_memory
from serin_cli.models.reference import Reference
from serin_cli.models.registry import ModelRegistry
from serin_worker.demo.paths import model_folder


@pytest.fixture
def folder(tmp_path):
    """A folder with a model."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("small", "v1"), folder)
    return folder


@pytest.fixture
def registry(state):
    """An empty registry."""
    return ModelRegistry(state)


def test_a_folder_is_found(folder, registry):
    """A folder with a configuration and safetensors is taken."""
    assert ModelFolders(registry).fetch(str(folder)) == folder


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "holds no config.json"), ("model.safetensors", "only pytorch_model.bin, which is a pickle")],
)
def test_an_unfit_folder_is_refused(folder, missing, said, registry):
    """What is missing is said, and pickles are named."""
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / missing).unlink()
    with pytest.raises(StartRefused, match=said):
        ModelFolders(registry).fetch(str(folder))


@pytest.mark.parametrize("fault", ["truncated", "pickle beside it", "own code"])
def test_what_no_worker_would_load_is_refused(folder, fault, registry):
    """The worker's own inspection is asked before anything is started, or stopped, for a folder: the file is named."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif fault == "own code":
        config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "model.Model"}}))
    else:
        (folder / "pytorch_model.bin").write_bytes(b"")
    blamed = {"truncated": "model.safetensors", "own code": "config.json"}.get(fault, "pytorch_model.bin")
    with pytest.raises(ModelRefused, match=blamed):
        ModelFolders(registry).fetch(str(folder))


def test_a_wrong_path_is_refused(registry):
    """What is neither a folder nor a hub id is refused with what is accepted."""
    with pytest.raises(ModelRefused, match=r"'./no/such': no such folder; accepted: a model folder, or a hub id"):
        ModelFolders(registry).fetch("./no/such")


def test_a_pushed_version_is_found_or_refused(registry):
    """A reference is looked up in the registry, and refused like any path."""
    with pytest.raises(ModelRefused, match=r"'registry:small:v1': not in the registry"):
        ModelFolders(registry).fetch("registry:small:v1")


def test_a_pushed_version_is_looked_at_again_whenever_it_is_read(folder, registry):
    """What was found once and changed since is refused by its file, and read again once it is mended."""
    registry.push(Reference("small", "v1"), folder, str(folder))
    folders = ModelFolders(registry)
    config = folders.fetch("registry:small:v1") / "config.json"
    folders.check("registry:small:v1")
    config.chmod(0o600)
    config.write_text(config.read_text() + " ")
    with pytest.raises(
        ModelRefused, match=r"config\.json was changed after it was pushed; push the same content again"
    ):
        folders.check("registry:small:v1")
    registry.push(Reference("small", "v1"), folder, str(folder))
    folders.check("registry:small:v1")
    folders.check(str(folder))


def test_too_many_workers_are_refused(folder):
    """Workers whose processes cannot fit are refused with both figures; one fits."""
    check_memory([folder])
    with pytest.raises(StartRefused, match=r"not enough memory: 1000 worker\(s\) need at least .* GiB"):
        check_memory([folder] * 1000)
