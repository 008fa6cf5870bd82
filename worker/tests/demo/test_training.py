"""Training: the same arguments give the same losses, and the command writes a folder that works."""

import json

import pytest
import torch
from serin_worker.demo import evaluate, train
from serin_worker.demo.training import Recipe, Training
from transformers import AutoModelForCausalLM


def _losses(seed, num_steps=4):
    return [progress.loss for progress in Training(Recipe(num_steps, seed=seed, num_rows=2)).run()]


def test_a_seed_gives_the_same_losses():
    """Bit for bit, for one number of threads; another seed goes another way."""
    first = _losses(0)
    assert first == _losses(0)
    assert first != _losses(1)


def test_the_loss_falls():
    """A few steps on few rows already learn the commonest bytes."""
    path = [progress.loss for progress in Training(Recipe(12, num_rows=2, num_warmup_steps=2)).run()]
    assert sum(path[-5:]) < 0.8 * sum(path[:5])


def test_the_rate_rises_stays_and_falls_to_nearly_nothing():
    """The schedule starts small, reaches its full height and ends near zero."""
    recipe = Recipe(1000)
    assert recipe.rate(0) < 0.05
    assert recipe.rate(500) == 1.0
    assert 0 < recipe.rate(999) < 0.01


@pytest.mark.long
def test_smoke_training_writes_a_folder_that_loads_and_can_be_measured(tmp_path, capsys):
    """The whole path, small: train, write, load, ask, print."""
    threads = torch.get_num_threads()
    folder = tmp_path / "model"
    assert train.main(["--out", str(folder), "--version", "v3", "--smoke", "--steps", "3"]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["num_steps"] == 3
    assert "errands" in manifest["accuracy_by_kind"]
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() == manifest["num_parameters"]
    capsys.readouterr()
    assert evaluate.main([str(folder), "--questions", "6", "--json"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["models"]
    assert sum(measured["num_asked"].values()) == 6
    assert "errands" not in measured["num_asked"]
    torch.set_num_threads(threads)


@pytest.mark.parametrize("flags", [["--questions", "0"], ["--questions", "many"], ["--threads", "-1"]])
def test_a_bad_count_is_refused_with_what_is_accepted(flags, capsys):
    """One line with flag, value and what is accepted, exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(flags)
    message = capsys.readouterr().err
    assert f"argument {flags[0]}: {flags[1]!r} is not a whole number of at least 1" in message


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    """One line with the folder's name, exit code 2."""
    assert evaluate.main([str(tmp_path / "nothing"), "--questions", "6"]) == 2
    assert "nothing: no config.json there" in capsys.readouterr().err
