"""The text of a serin.yaml: folders made absolute where they are, everything else as it was written."""

import pytest
from serin_cli.__main__ import main
from serin_cli.config_text import with_absolute_paths
from serin_cli.demo_model import demo_config, model_config
from serin_control.config import parse_config

TEXT = """\
# our models
models:
  small:          # the demo
    path: models/small   # relative
    workers: 2
  other:
    versions:
      v1: {path: "models/small", weight: 1}
      v2: {path: org/name}
"""


def test_only_folders_that_exist_are_rewritten(tmp_path):
    """Comments, lines and hub ids stay; relative folders become absolute."""
    (tmp_path / "models" / "small").mkdir(parents=True)
    text = with_absolute_paths(TEXT, tmp_path)
    expected = TEXT.replace('"models/small"', "models/small").replace("models/small", f'"{tmp_path}/models/small"')
    assert text == expected
    config = parse_config(text)
    assert config.models["small"].path == f"{tmp_path}/models/small"
    assert [release.path for release in config.models["other"].releases()] == [f"{tmp_path}/models/small", "org/name"]


def test_a_bad_file_is_one_line_with_file_and_line(tmp_path, capsys):
    """`serin config check` names file, line, key, and what is accepted; exit code 2."""
    file = tmp_path / "serin.yaml"
    file.write_text(TEXT.replace("workers: 2", "workers: many"))
    assert main(["config", "check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{file}:5: models.small.workers: ")
    assert "accepted:" in err
    assert err.count("\n") == 1


def test_guards_that_cannot_look_are_found_by_check(tmp_path, capsys, monkeypatch):
    """A policy that asks for what is not installed is refused with file, line and key, and what to install."""
    (tmp_path / "small").mkdir()
    file = tmp_path / "serin.yaml"
    file.write_text("models: {small: {path: org/name}}\nguards:\n  policies:\n    p: {pii: {output: refuse}}\n")
    monkeypatch.setattr("serin_cli.commands.config.check_models", lambda *anything: None)
    assert main(["config", "check", str(file)]) == 0
    monkeypatch.setattr("serin_cli.config_text.is_installed", lambda: False)
    capsys.readouterr()
    assert main(["config", "check", str(file)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{file}:4: guards.policies.p.pii: presidio-analyzer is not installed here: pip install")


def test_a_missing_model_is_found_by_check(tmp_path, capsys):
    """A path that is neither a folder nor a hub id is refused with file, line and key, before anything runs."""
    file = tmp_path / "serin.yaml"
    accepted = "no such folder; accepted: a model folder, or a hub id such as org/name, or registry:NAME:VERSION\n"
    file.write_text("models:\n  small:\n    path: ./nowhere/at/all\n")
    for command in (["config", "check", str(file)], ["up", "-f", str(file), "--state", str(tmp_path / "state")]):
        assert main(command) == 2
        assert capsys.readouterr().err == f"{file}:3: models.small.path: './nowhere/at/all': {accepted}"
    (tmp_path / "empty").mkdir()
    file.write_text("models:\n  small:\n    versions:\n      v1: {path: /nope}\n      v2:\n        path: empty\n")
    assert main(["config", "check", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}:4: models.small.versions.v1.path: '/nope': {accepted}"


@pytest.mark.parametrize("model", ["/nope", "", " "])
def test_a_model_flag_that_names_nothing_is_refused(model, tmp_path, capsys):
    """`serin up --model` says that the flag is wrong, with exit code 2."""
    assert main(["up", "--model", model, "--state", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"serin up: --model: {model!r}: no such folder; accepted: a model folder, or a hub id")


@pytest.mark.parametrize(
    ("model", "name", "version"),
    [("Org/My Model", "my-model", "v1"), ("org/Qwen3-0.6B", "qwen3-0.6b", "v1")],
)
def test_a_hub_id_names_its_model(model, name, version):
    """The model is named after the last part of its hub id."""
    config = parse_config(model_config(model, workers=3))
    assert list(config.models) == [name]
    (release,) = config.models[name].releases()
    assert (release.version, release.path, release.workers) == (version, model, 3)


def test_a_pushed_version_names_its_model():
    """`registry:small:v7` is version v7 of small."""
    config = parse_config(model_config("registry:small:v7"))
    (release,) = config.models["small"].releases()
    assert (release.version, release.path) == ("v7", "registry:small:v7")


def test_a_version_folder_is_named_after_its_parent(tmp_path):
    """`…/small/v2` is version v2 of small."""
    folder = tmp_path / "small" / "v2"
    folder.mkdir(parents=True)
    config = parse_config(model_config(str(folder)))
    (release,) = config.models["small"].releases()
    assert (release.version, release.path) == ("v2", str(folder))


def test_the_demo_declares_reproducible_answers():
    """The demo model computes in float32 with invariant numerics."""
    config = parse_config(demo_config(workers=2))
    (release,) = config.models["small"].releases()
    assert release.engine == {"numerics": "invariant", "precision": "float32"}
    assert release.workers == 2
