"""Encoding and decoding equal transformers on the same model folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizer_folders as folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serin_tokenizer_svc.errors import FolderRefused
from serin_tokenizer_svc.folder import read_folder
from serin_tokenizer_svc.vocabulary import Vocabulary
from tokenizers import processors

KINDS = sorted(folders.KINDS)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from([*folders.CORPUS[:5], *folders.SPECIAL, *folders.PLAIN_ADDED, "</s>", " ", "\n"]), max_size=4
    ).map("".join),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_encode_equals_transformers(kind, text, vocabularies, oracles):
    """Ids are those of transformers, with and without the special ids it adds."""
    for add in (True, False):
        (ids,) = vocabularies[kind].encode([text], add)
        assert ids == oracles[kind].encode(text, add_special_tokens=add)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_no_id_takes_up_more_than_the_longest_span(kind, text, vocabularies):
    """Where a bound is claimed, any text of any language keeps to it."""
    vocabulary = vocabularies[kind]
    if vocabulary.longest_span is not None:
        (ids,) = vocabulary.encode([text], False)
        assert len(text.encode()) <= vocabulary.longest_span * len(ids)


def test_where_a_longest_span_is_known(vocabularies):
    """Of byte-level tokenizers it is; where characters may be lost nothing is claimed."""
    assert vocabularies["byte_level"].longest_span is not None
    spans = {kind: vocabulary.longest_span for kind, vocabulary in vocabularies.items()}
    assert None in spans.values(), spans


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_decode_equals_transformers(kind, data, vocabularies, oracles):
    """Text is that of transformers for any ids, wherever the bytes are UTF-8."""
    vocabulary = vocabularies[kind]
    ids = data.draw(st.lists(st.integers(0, vocabulary.size + 2), max_size=30))
    for keep in (True, False):
        text, raw = vocabulary.decode(ids, keep)
        expected = oracles[kind].decode(ids, skip_special_tokens=not keep)
        if kind == "byte_fallback" and "\ufffd" in expected:
            # There transformers throws a whole run of byte tokens away for one bad byte; we only the bad byte.
            assert raw.decode("utf-8", "replace") in (text, f" {text}")
        else:
            assert text == expected


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace", "characters"])
def test_bytes_of_single_ids_add_up(kind, vocabularies):
    """What each id by itself stands for, put together, is the text: a report of log-probabilities can be read."""
    vocabulary = vocabularies[kind]
    (ids,) = vocabulary.encode([folders.CORPUS[0]], False)
    single = b"".join(vocabulary.decode([token_id], True)[1] for token_id in ids)
    assert single.decode().removeprefix(" ") == vocabulary.decode(ids, True)[0]
    assert single == vocabulary.decode(ids, True)[1]
    assert b" " in single


def test_end_ids_come_from_the_generation_configuration(tmp_path):
    """The model's generation configuration decides; without one the end token does."""
    plain = folders.make("byte_level", tmp_path / "a")
    vocabulary = Vocabulary(read_folder(plain))
    assert vocabulary.end_token_ids == (vocabulary.added_tokens["<|im_end|>"][0],)
    (plain / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert Vocabulary(read_folder(plain)).end_token_ids == (7, 9)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", None, "tokenizer.json: not found"),
        ("tokenizer.json", "{", "tokenizer.json: not a readable tokenizer"),
        ("tokenizer.json", '{"version": "1.0"}', "tokenizer.json: not a readable tokenizer"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json: not a JSON object"),
        ("tokenizer_config.json", '{"chat_template": [3]}', "tokenizer_config.json: chat_template"),
        ("tokenizer_config.json", '{"eos_token": 3}', "tokenizer_config.json: eos_token: 3"),
        (
            "tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}',
            "tokenizer_config.json: asks to run",
        ),
        ("generation_config.json", '{"eos_token_id": "x"}', "generation_config.json: eos_token_id: 'x'"),
    ],
)
def test_damaged_folders_are_refused_by_file(tmp_path, file, content, said):
    """A missing or damaged file is named in one sentence."""
    folder = folders.make("byte_level", tmp_path)
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(FolderRefused) as refused:
        Vocabulary(read_folder(folder))
    assert said in str(refused.value)


def test_the_digest_covers_every_file_that_decides_ids(tmp_path):
    """Changing the template, the tokenizer or its configuration changes the digest; changing a README does not."""
    folder = folders.make("byte_level", tmp_path)
    before = read_folder(folder).digest
    (folder / "README.md").write_text("hello")
    assert read_folder(folder).digest == before
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert read_folder(folder).digest != before


def test_a_hub_model_is_found_by_its_name(tmp_path):
    """A name that is no folder is looked up on the hub; what is there already needs no network."""
    snapshot = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / ("0" * 40)
    folders.save(snapshot, folders.characters(), folders.CONFIGS["characters"])
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    script = "from serin_tokenizer_svc.folder import *; print(read_folder(find_folder('acme/tiny')).path)"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == snapshot
    missing = subprocess.run(
        [sys.executable, "-c", script.replace("tiny", "other")], env=environment, capture_output=True, text=True
    )
    assert "FolderRefused: acme/other: no such folder, and the model hub did not give it" in missing.stderr


def test_special_ids_are_put_around_a_text_that_is_not_cut(tmp_path):
    """As BERT: [CLS] text [SEP], whatever truncation and padding the file was saved with; no template is needed."""
    tokenizer = folders.word_piece()
    tokenizer.add_special_tokens(["[CLS]"])
    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    plain = tokenizer.encode("the quick brown fox " * 5).ids
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=128)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    vocabulary = Vocabulary(read_folder(tmp_path))
    texts = ["the quick brown fox " * 5, "the"]
    long, short = vocabulary.encode(texts, add_special_tokens=True)
    assert long == [first, *plain, last]
    assert (short[0], short[-1], len(short)) == (first, last, 2 + len(vocabulary.encode(["the"], False)[0]))
