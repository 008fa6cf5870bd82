"""The committed models: right about as often as their cards say, and alike in everything but their weights."""

import json

import pytest
from serin_mesh.identity import vocabulary_digest
from serin_worker.demo.corpus import corpus_digest, held_out_items
from serin_worker.demo.evaluate import accuracy_of
from serin_worker.demo.paths import FAMILIES, model_folder
from serin_worker.demo.tokenizer import build_tokenizer
from serin_worker.demo.train import RECIPES
from serin_worker.demo.training import Recipe
from transformers import AutoTokenizer

VERSIONS = FAMILIES["small"]


@pytest.fixture(scope="module")
def accuracies():
    """Accuracy of every version on the same 180 questions."""
    items = held_out_items(180)
    return {version: accuracy_of(model_folder("small", version), items) for version in VERSIONS}


def _card(version):
    return json.loads((model_folder("small", version) / "manifest.json").read_text())


def test_v2_answers_nine_of_ten_held_out_questions(accuracies):
    """The better version, overall."""
    assert accuracies["v2"].overall >= 0.9


def test_v1_is_really_worse_but_no_fool(accuracies):
    """A canary from v1 to v2 must be visibly better, and back visibly worse."""
    assert 0.55 <= accuracies["v1"].overall <= 0.85
    assert accuracies["v1"].overall < accuracies["v2"].overall - 0.1


@pytest.mark.parametrize(("version", "low", "high"), [("v1", 0.6, 0.8), ("v2", 0.9, 1.0)])
def test_the_cards_state_the_promised_accuracy(version, low, high, accuracies):
    """The figures on 600 questions keep the promise, and a sample agrees with them."""
    assert low <= _card(version)["accuracy"] <= high
    assert accuracies[version].overall == pytest.approx(_card(version)["accuracy"], abs=0.08)


def test_both_versions_share_one_vocabulary():
    """A stream may never mix vocabularies, so a rollout from v1 to v2 needs them equal."""
    digests = {vocabulary_digest(model_folder("small", version)) for version in VERSIONS}
    assert len(digests) == 1
    assert digests == {_card(version)["vocabulary_digest"] for version in VERSIONS}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_committed_tokenizer_is_the_one_the_code_builds(version):
    """Same vocabulary, same template, so the training code and the files cannot drift apart."""
    committed, built = AutoTokenizer.from_pretrained(model_folder("small", version)), build_tokenizer()
    assert committed.get_vocab() == built.get_vocab()
    assert committed.chat_template == built.chat_template
    assert committed.eos_token == built.eos_token


@pytest.mark.parametrize("version", VERSIONS)
def test_the_committed_recipe_is_the_one_the_command_follows(version):
    """Training again with the version's name alone repeats what was done."""
    assert Recipe(**_card(version)["recipe"]) == RECIPES["small"][version]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_were_trained_on_this_corpus(version):
    """Whoever changes the corpus trains the models again."""
    assert _card(version)["corpus_digest"] == corpus_digest(extra=RECIPES["small"][version].extra_kind)


def test_the_page_about_the_models_states_their_figures():
    """The README's table is the cards' table."""
    page = (model_folder("small", "v2").parents[1] / "README.md").read_text()
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in page.splitlines() if " %" in line]
    stated = {row[0]: row[2:] for row in rows}
    cards = [_card(version) for version in VERSIONS]
    for kind in cards[0]["accuracy_by_kind"]:
        assert stated[kind] == [f"{100 * card['accuracy_by_kind'][kind]:.1f} %" for card in cards]
    assert stated["all"] == [f"{100 * card['accuracy']:.1f} %" for card in cards]
