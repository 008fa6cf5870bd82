"""The model registry: versions that never change, whole or not at all."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from serin_cli.__main__ import main
from serin_cli.errors import ModelRefused
from serin_cli.models.manifest import manifest_from
from serin_cli.models.reference import Reference, parse_reference
from serin_cli.models.registry import ModelRegistry, VersionTaken
from serin_cli.state_dir import StateDir
from serin_mesh.identity import vocabulary_digest
from serin_worker.model.checkpoint import inspect
from serin_worker.model.digests import weights_digest

DEMO = Path(__file__).resolve().parents[3] / "deploy" / "models" / "small"
V1 = Reference("small", "v1")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def model(tmp_path):
    """A folder with the demo model, to be changed at will."""
    return Path(shutil.copytree(DEMO / "v1", tmp_path / "model"))


@pytest.fixture
def registry(state):
    """An empty registry."""
    return ModelRegistry(state)


def push(registry: ModelRegistry, folder: Path, reference: Reference = V1):
    """Push a folder as a version."""
    return registry.push(reference, folder, str(folder))


def test_a_pushed_version_is_served_as_it_was(registry, model, tmp_path):
    """Files, digests and origin are kept; a later change of the folder reaches nobody."""
    manifest = push(registry, model).manifest
    assert {file.name for file in manifest.files} == {path.name for path in model.iterdir()}
    assert manifest.vocabulary == vocabulary_digest(model)
    assert manifest.weights == weights_digest(inspect(model), tmp_path / "digests")
    assert (manifest.source, manifest.num_bytes) == (str(model), sum(path.stat().st_size for path in model.iterdir()))
    (model / "config.json").write_text("{}")
    folder = registry.folder(V1)
    assert (folder / "config.json").read_bytes() == (DEMO / "v1" / "config.json").read_bytes()
    assert inspect(folder).num_parameters
    assert registry.get(V1) == manifest
    assert manifest_from(manifest.as_json()) == manifest


def test_an_embedding_models_pooling_is_kept(registry, model):
    """Its folder is part of the version: served, seen when it is changed, mended, and nothing may be put into it."""
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (model / "1_Pooling" / "code.py").write_text("print()")
    manifest = push(registry, model).manifest
    assert "1_Pooling/config.json" in manifest.contents
    folder = registry.folder(V1)
    assert [path.name for path in (folder / "1_Pooling").iterdir()] == ["config.json"]
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "1_Pooling" / "more").write_text("")
    with pytest.raises(ModelRefused, match=r"1_Pooling/config.json is missing"):
        registry.folder(V1)
    assert not push(registry, model).is_new
    assert registry.folder(V1) == folder
    assert (folder / "1_Pooling" / "config.json").read_text() == '{"pooling_mode": "mean"}'


def test_the_same_content_again_changes_nothing(registry, model):
    """A second push is told from the first and keeps its record."""
    first, second = push(registry, model), push(registry, model)
    assert (first.is_new, second.is_new) == (True, False)
    assert second.manifest == first.manifest


def test_other_content_under_the_same_version_is_refused(registry, model):
    """The file that differs is named, and what was there stays."""
    before = push(registry, model).manifest
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with pytest.raises(VersionTaken, match=r"small:v1 is there already and holds other content \(config.json\)"):
        push(registry, model)
    (model / "config.json").write_bytes((DEMO / "v1" / "config.json").read_bytes())
    (model / "more.txt").write_text("one file more")
    with pytest.raises(VersionTaken, match=r"\(more.txt\)"):
        push(registry, model)
    assert registry.get(V1) == before


def test_equal_files_are_kept_once(registry, model, state):
    """Two versions with the same weights share them on disk."""
    push(registry, model)
    (model / "generation_config.json").write_text("{}")
    push(registry, model, Reference("small", "v2"))
    folders = [registry.folder(V1), registry.folder(Reference("small", "v2"))]
    assert len({(folder / "model.safetensors").stat().st_ino for folder in folders}) == 1
    assert len({(folder / "generation_config.json").stat().st_ino for folder in folders}) == 2
    assert [manifest.version for manifest in registry.versions()] == ["v1", "v2"]
    assert registry.versions("other") == []


@pytest.mark.parametrize("touched", ["in place", "replaced", "with its old times"])
def test_a_changed_file_is_refused_by_name(registry, model, touched):
    """However a file in the registry was changed, it is not served, also after it was read and believed before."""
    push(registry, model)
    file = registry.folder(V1) / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if touched == "replaced":
        file.unlink()
    else:
        file.chmod(0o644)
    file.write_bytes(content)
    if touched == "with its old times":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelRefused, match=r"model.safetensors was changed after it was pushed; push the same content"):
        registry.folder(V1)


def test_an_edited_file_harms_one_version(registry, model):
    """Small files are no links: who edits one in the registry damages no other version."""
    push(registry, model)
    push(registry, model, Reference("small", "again"))
    file = registry.folder(V1) / "config.json"
    file.chmod(0o644)
    file.write_text("{}")
    with pytest.raises(ModelRefused, match=r"config.json was changed"):
        registry.folder(V1)
    assert registry.folder(Reference("small", "again"))


def test_a_missing_and_a_foreign_file_are_refused_by_name(registry, model):
    """Nothing may be gone, and nothing may be put beside what was pushed."""
    push(registry, model)
    folder = registry.folder(V1)
    (folder / "extra.safetensors").write_bytes(b"")
    with pytest.raises(ModelRefused, match=r"extra.safetensors was put there"):
        registry.folder(V1)
    (folder / "extra.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelRefused, match=r"tokenizer.json is missing"):
        registry.folder(V1)


def test_pushing_again_mends(registry, model, state, capsys):
    """The same content under the same version replaces what was damaged, takes away what was put there, and says so."""
    push(registry, model)
    folder = registry.folder(V1)
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "extra.json").write_text("{}")
    assert main(["model", "push", "small", "v1", str(model), "--state", str(state.root)]) == 0
    first, mended = capsys.readouterr().out.rstrip("\n").split("; mended: ")
    assert first.startswith("small:v1 is there already with the same content, pushed ")
    assert set(mended.split(", ")) == {"config.json", "tokenizer.json", "extra.json"}
    again = push(registry, model)
    assert (again.is_new, again.mended) == (False, ())
    assert {path.name for path in registry.folder(V1).iterdir()} == {path.name for path in model.iterdir()}


def test_a_manifest_changed_by_hand_is_refused(registry, model, state):
    """Digests in a manifest belong together."""
    push(registry, model)
    (path,) = state.models.glob("manifests/small/v1.json")
    document = json.loads(path.read_text())
    document["files"][0]["digest"] = "00" * 32
    path.write_text(json.dumps(document))
    with pytest.raises(ModelRefused, match=r"v1.json cannot be used \(its digest is not that of its files\)"):
        registry.folder(V1)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("pytorch_model.bin", b"", "pytorch_model.bin: pickled weights can run code"),
        ("config.json", b'{"model_type": "x", "auto_map": {}}', "config.json: asks to run its own code"),
        ("model.safetensors", b"short", "model.safetensors: not a safetensors file"),
        ("tokenizer.json", b"{}", "tokenizer.json: not a readable tokenizer"),
    ],
)
def test_what_would_not_be_served_is_not_kept(registry, model, state, file, content, said):
    """A push is refused for what a worker would refuse, by file, and leaves nothing behind."""
    (model / file).write_bytes(content)
    with pytest.raises(ModelRefused, match=said):
        push(registry, model)
    assert [path for path in state.models.rglob("*") if path.is_file()] == []


def test_a_damaged_version_is_seen_in_the_list(registry, model, state, capsys):
    """As in what is shown of it alone: the file is named, with 1; beside it stands what is whole."""
    at = ["--state", str(state.root)]
    push(registry, model)
    push(registry, model, Reference("small", "v2"))
    assert main(["model", "list", *at]) == 0
    out, err = capsys.readouterr()
    assert (out.count("as pushed"), err) == (2, "")
    config = registry.folder(V1) / "config.json"
    config.unlink()
    config.write_text("{}")
    for action in (["list"], ["show", "small:v1"]):
        assert main(["model", *action, *at]) == 1
        assert f"DAMAGED: {config} was changed after it was pushed; push the same content" in capsys.readouterr().err
        assert main(["model", *action, "--json", *at]) == 1
        out, err = capsys.readouterr()
        found = json.loads(out)
        first, others = (found[0], found[1:]) if action == ["list"] else (found, [])
        assert (str(config) in first["damaged"], [one["damaged"] for one in others], err) == (
            True,
            [None][: len(others)],
            "",
        )
    main(["model", "list", *at])
    assert [line.count("DAMAGED") for line in capsys.readouterr().out.splitlines()] == [0, 1, 0]


def test_an_unknown_version_names_those_there_are(registry, model):
    """Whoever asks for what is not there learns what is."""
    with pytest.raises(ModelRefused, match=r"no version of small is there"):
        registry.folder(V1)
    push(registry, model)
    with pytest.raises(ModelRefused, match=r"not in the registry .versions of small: v1."):
        registry.folder(Reference("small", "v9"))


def test_what_a_broken_push_left_is_cleared(registry, model, state):
    """A push that ended before its manifest is no version; the next one starts afresh."""
    (state.models / "folders" / "small" / "v1").mkdir(parents=True)
    (state.models / "folders" / "small" / "v1" / "half").write_text("")
    (state.models / "blobs").mkdir()
    (state.models / "blobs" / ".incoming-dead").write_text("")
    assert registry.versions() == []
    push(registry, model)
    assert not (registry.folder(V1) / "half").exists()
    assert not (state.models / "blobs" / ".incoming-dead").exists()


@pytest.mark.parametrize(
    "path", ["registry:", "registry:small", "registry:../x:v1", "registry:small:..", "registry:a:b:c"]
)
def test_a_malformed_reference_is_refused(path):
    """What begins like a reference is one or is refused; it never leaves the registry's folder."""
    with pytest.raises(ModelRefused, match="accepted: registry:NAME:VERSION"):
        parse_reference(path)
    assert parse_reference("org/name") is None
    assert parse_reference("registry:small:v1") == V1


def test_pushes_of_one_version_at_the_same_time(registry, model, state, tmp_path):
    """Of several different pushes of one version exactly one wins, the others are refused; what is there is whole."""
    folders = []
    for index in range(4):
        folder = Path(shutil.copytree(model, tmp_path / f"model-{index}"))
        (folder / "note.txt").write_text(str(index))
        folders.append(str(folder))
    with SPAWN.Pool(4) as pool:
        outcomes = pool.starmap(_push, [(str(state.root), folder) for folder in folders])
    assert sorted(outcomes) == ["new", "taken", "taken", "taken"]
    winner = folders[outcomes.index("new")]
    assert registry.get(V1).source == winner
    assert (registry.folder(V1) / "note.txt").read_text() == winner[-1]


def _push(root: str, folder: str) -> str:
    try:
        return "new" if push(ModelRegistry(StateDir(Path(root))), Path(folder)).is_new else "same"
    except VersionTaken:
        return "taken"
