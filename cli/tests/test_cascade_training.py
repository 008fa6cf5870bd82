"""`serin cascade train`: it learns what can be learned, says how well, and what it prints is a configuration."""

import json
import random

import pytest
import yaml
from serin_cli.__main__ import main
from serin_cli.cascade_training import Example, train
from serin_control.config import parse_config


def examples(count: int = 300) -> list[Example]:
    """Sums are for the larger model, capitals are not."""
    draw = random.Random(3)
    found = []
    for n in range(count):
        if n % 2:
            found.append(Example(f"What is {draw.randint(0, 99)} + {draw.randint(0, 99)}?", True))
        else:
            found.append(Example(f"What is the capital of {chr(65 + draw.randint(0, 25))}land number {n}?", False))
    return found


def test_what_can_be_learned_is_learned_and_measured_on_others():
    """Sums by their digits and signs; the same examples and seed give the same classifier."""
    trained = train(examples())
    assert trained.auc > 0.99
    assert trained.num_learned + trained.num_held == 300
    assert trained.classifier.probability("What is 71 + 8?") > 0.8
    assert trained.classifier.probability("What is the capital of Norway?") < 0.2
    assert train(examples()).classifier == trained.classifier


def test_what_cannot_be_learned_is_no_better_than_chance():
    """Labels by a coin: no leak from what was learned to what measures."""
    draw = random.Random(5)
    coins = [Example(f"question {n} {draw.random()}", draw.random() < 0.5) for n in range(2000)]
    assert 0.4 < train(coins).auc < 0.6


def test_the_command_prints_a_part_of_a_configuration(tmp_path, capsys):
    """Under `escalate_when:` of a cascade."""
    file = tmp_path / "examples.jsonl"
    lines = [json.dumps({"text": one.text, "escalate": one.escalate}) for one in examples()]
    file.write_text("\n".join(lines) + "\n")
    assert main(["cascade", "train", str(file), "--above", "0.4"]) == 0
    printed = capsys.readouterr().out
    assert "AUC 1.000" in printed or "AUC 0.99" in printed
    document = {
        "models": {"a": {"path": "x"}, "b": {"path": "y"}},
        "cascades": {"s": {"first": "a", "then": "b", "escalate_when": yaml.safe_load(printed)}},
    }
    assert parse_config(yaml.safe_dump(document)).cascades["s"].escalate_when.classifier.above == 0.4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "examples.jsonl:1: no JSON"),
        ('{"text": "a"}', 'examples.jsonl:1: accepted: an object with exactly "text" and "escalate"'),
        ('{"text": 1, "escalate": true}', "examples.jsonl:1: accepted: text as text"),
        ('\n{"text": "a", "escalate": true}', "1 examples"),
    ],
)
def test_bad_examples_are_one_line(tmp_path, capsys, text, says):
    """File, line, what is accepted."""
    (tmp_path / "examples.jsonl").write_text(text)
    assert main(["cascade", "train", str(tmp_path / "examples.jsonl")]) == 2
    assert says in capsys.readouterr().err
    assert main(["cascade", "train", "x", "--above", "2"]) == 2
    assert "0..1" in capsys.readouterr().err
