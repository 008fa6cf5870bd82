"""What a description asks for is done, or refused by name in one line."""

import json

import pytest
from serin_worker.embedding.recipe import is_embedding_model, read_recipe
from serin_worker.errors import ModelRefused
from serin_worker.testing import write_tiny_encoder


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A folder that is right."""
    return write_tiny_encoder(tmp_path_factory.mktemp("described"), max_tokens=40)


def copy(described, folder, name: str, content: object):
    """The description with one file changed."""
    for one in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        (folder / one).write_text((described / one).read_text())
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def modules(*types: str, path: str = "1_Pooling") -> list[dict]:
    """A list of modules."""
    return [{"idx": at, "path": "" if at == 0 else path, "type": kind} for at, kind in enumerate(types)]


def models(*kinds: str) -> list[str]:
    """Types of sentence-transformers."""
    return [f"sentence_transformers.models.{kind}" for kind in kinds]


def test_the_flags_of_older_descriptions(described, tmp_path):
    """They say the same as the names of newer ones; several are joined in a fixed order."""
    flags = {
        "word_embedding_dimension": 64,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": True,
        "pooling_mode_max_tokens": False,
    }
    recipe = read_recipe(copy(described, tmp_path, "1_Pooling/config.json", flags))
    assert (recipe.poolings, recipe.normalizes) == (("cls", "mean"), True)
    assert (recipe.max_tokens, recipe.hidden_size) == (40, 64)
    assert is_embedding_model(tmp_path)
    assert recipe.digest != read_recipe(described).digest


def test_where_the_description_names_no_length_the_tokenizer_does(described, tmp_path):
    """A tokenizer's "no limit" is none."""
    folder = copy(described, tmp_path, "sentence_bert_config.json", {"max_seq_length": None})
    assert read_recipe(folder).max_tokens is None
    for said, found in ((77, 77), (1e30, None)):
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": said}))
        assert read_recipe(folder).max_tokens == found


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("modules.json", modules(*models("Transformer", "Pooling", "Dense", "Normalize")), "Dense"),
        ("modules.json", modules(*models("Transformer")), "Transformer"),
        ("modules.json", [], "none"),
        ("modules.json", modules("sentence_transformers.models.Transformer", "mine.Pooling"), "own code"),
        ("modules.json", modules(*models("Transformer", "Pooling"), path="../x"), "'../x'"),
        ("modules.json", modules(*models("Transformer", "Pooling"))[::-1], "Pooling, Transformer"),
        ("modules.json", ["Transformer"], "list of objects"),
        ("modules.json", "{", "not readable"),
        ("modules.json", {}, "not a JSON list"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "'attention'"),
        ("1_Pooling/config.json", {"pooling_mode_some_tokens": True}, "'pooling_mode_some_tokens'"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "names no pooling"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "word_embedding_dimension": "64"}, "'64'"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: 0"),
    ],
)
def test_what_is_refused(described, tmp_path, name, content, said):
    """With the file's name, in one line."""
    folder = copy(described, tmp_path, name, content)
    with pytest.raises(ModelRefused) as refused:
        read_recipe(folder)
    assert name.split("/")[-1] in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
