"""The committed models: right about as often as their cards say, and alike in everything but their weights."""

import json

import pytest
from serin_mesh.identity import vocabulary_digest
from serin_worker.demo.corpus import corpus_digest, held_out_items
from serin_worker.demo.evaluate import accuracy_of
from serin_worker.demo.model import SHAPES
from serin_worker.demo.paths import FAMILIES, model_folder
from serin_worker.demo.tokenizer import build_tokenizer
from serin_worker.demo.train import RECIPES
from serin_worker.demo.training import Recipe
from transformers import AutoTokenizer

MODELS = [(family, version) for family, versions in FAMILIES.items() for version in versions]
VERSIONS = FAMILIES["small"]


@pytest.fixture(scope="module")
def accuracies():
    """Accuracy of every version of small, and of mini, on the same 60 questions."""
    items = held_out_items(60)
    found = {version: accuracy_of(model_folder("small", version), items) for version in VERSIONS}
    return found | {"mini": accuracy_of(model_folder("mini", "v1"), items)}


def _card(version, family="small"):
    return json.loads((model_folder(family, version) / "manifest.json").read_text())


def test_v2_answers_nine_of_ten_held_out_questions(accuracies):
    """The better version, overall."""
    assert accuracies["v2"].overall >= 0.9


def test_v1_is_really_worse_but_no_fool(accuracies):
    """A canary from v1 to v2 must be visibly better, and back visibly worse."""
    assert 0.55 <= accuracies["v1"].overall <= 0.85
    assert accuracies["v1"].overall < accuracies["v2"].overall - 0.1


def test_mini_is_worth_asking_first(accuracies):
    """A fifth of small's work for a token, and right more often than not: else a cascade could save nothing."""
    assert 4 < SHAPES["small"].multiplications_per_token / SHAPES["mini"].multiplications_per_token < 6
    assert _card("v1", "mini")["num_parameters"] < 350_000
    assert 0.5 <= accuracies["mini"].overall < accuracies["v2"].overall - 0.05
    assert accuracies["mini"].overall == pytest.approx(_card("v1", "mini")["accuracy"], abs=0.08)


@pytest.mark.parametrize(("version", "low", "high"), [("v1", 0.6, 0.8), ("v2", 0.9, 1.0)])
def test_the_cards_state_the_promised_accuracy(version, low, high, accuracies):
    """The figures on 600 questions keep the promise, and a sample agrees with them."""
    assert low <= _card(version)["accuracy"] <= high
    assert accuracies[version].overall == pytest.approx(_card(version)["accuracy"], abs=0.08)


def test_all_models_share_one_vocabulary():
    """A stream may never mix vocabularies, so a rollout from v1 to v2 needs them equal; prompts of ids cascade, too."""
    digests = {vocabulary_digest(model_folder(family, version)) for family, version in MODELS}
    assert len(digests) == 1
    assert digests == {_card(version, family)["vocabulary_digest"] for family, version in MODELS}


@pytest.mark.parametrize(("family", "version"), MODELS)
def test_the_committed_tokenizer_is_the_one_the_code_builds(family, version):
    """Same vocabulary, same template, so the training code and the files cannot drift apart."""
    committed, built = AutoTokenizer.from_pretrained(model_folder(family, version)), build_tokenizer()
    assert committed.get_vocab() == built.get_vocab()
    assert committed.chat_template == built.chat_template
    assert committed.eos_token == built.eos_token


@pytest.mark.parametrize(("family", "version"), MODELS)
def test_the_committed_recipe_is_the_one_the_command_follows(family, version):
    """Training again with the names alone repeats what was done."""
    assert _card(version, family)["family"] == family
    assert Recipe(**_card(version, family)["recipe"]) == RECIPES[family][version]


@pytest.mark.parametrize(("family", "version"), MODELS)
def test_the_models_were_trained_on_this_corpus(family, version):
    """Whoever changes the corpus trains the models again."""
    assert _card(version, family)["corpus_digest"] == corpus_digest(extra=RECIPES[family][version].extra_kind)


def test_the_page_about_the_models_states_their_figures():
    """The README's table is the cards' table."""
    page = (model_folder("small", "v2").parents[1] / "README.md").read_text()
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in page.splitlines() if " %" in line]
    stated = {row[0]: row[2:] for row in rows}
    cards = [*(_card(version) for version in VERSIONS), _card("v1", "mini")]
    for kind in cards[0]["accuracy_by_kind"]:
        assert stated[kind] == [f"{100 * card['accuracy_by_kind'][kind]:.1f} %" for card in cards]
    assert stated["all"] == [f"{100 * card['accuracy']:.1f} %" for card in cards]
