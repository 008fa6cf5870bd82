"""The tokenizer: every text there and back, and one template with a fast twin."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from serin_worker.demo.chatml import encode_dialogue, encode_question
from serin_worker.demo.corpus import held_out_items, training_dialogues
from serin_worker.demo.tokenizer import SPECIAL_TOKENS, VOCABULARY_SIZE, build_tokenizer

TOKENIZER = build_tokenizer()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(text):
    """Whatever unicode goes in comes out, specials' own names apart."""
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@given(st.text(alphabet=st.characters(exclude_characters="<", exclude_categories=["Cs"])))
def test_an_id_below_256_is_a_byte(text):
    """Plain text becomes its UTF-8 bytes, one id each."""
    assert TOKENIZER.encode(text, add_special_tokens=False) == list(text.encode())


def test_every_id_has_a_token():
    """The vocabulary has no holes and no doubles."""
    vocabulary = TOKENIZER.get_vocab()
    assert sorted(vocabulary.values()) == list(range(VOCABULARY_SIZE))


def test_special_tokens_are_single_ids_and_left_out_of_decoded_text():
    """Turn markers never show up in answers; tool markup does."""
    for text in SPECIAL_TOKENS:
        assert len(TOKENIZER.encode(text)) == 1
    ids = TOKENIZER.encode("<tool_call>a</tool_call><|im_end|>")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<tool_call>a</tool_call>"


def _rendered(messages, tools, generate):
    return TOKENIZER.apply_chat_template(messages, tools=tools, add_generation_prompt=generate, return_dict=False)


def test_the_template_and_its_fast_twin_agree_on_questions():
    """What evaluation and serving send is what training encoded."""
    for item in held_out_items(350, extra="errands"):
        assert _rendered(list(item.messages), list(item.tools) or None, True) == encode_question(item)


def test_the_template_and_its_fast_twin_agree_on_whole_dialogues():
    """Training rows hold exactly what the template makes of the same conversation, answers and all."""
    for dialogue in islice(training_dialogues(5, "errands"), 300):
        messages = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
        for item in dialogue.items:
            messages += [*item.messages, {"role": "assistant", "content": item.answer}]
        tools = list({tool["function"]["name"]: tool for item in dialogue.items for tool in item.tools}.values())
        ids, weights, num_taken = encode_dialogue(dialogue, 100_000)
        assert num_taken == len(dialogue.items)
        assert ids == _rendered(messages, tools or None, False)
        assert len(weights) == len(ids)


def test_only_answers_are_learned():
    """The ids with a weight spell the answers, each with its end of turn."""
    for dialogue in islice(training_dialogues(6), 50):
        ids, weights, _ = encode_dialogue(dialogue, 100_000)
        learned = [token for token, weight in zip(ids, weights, strict=True) if weight]
        expected = "".join(item.answer + "<|im_end|>" for item in dialogue.items)
        assert TOKENIZER.decode(learned, skip_special_tokens=False) == expected


def test_a_dialogue_is_cut_between_questions():
    """What does not fit is left out whole."""
    dialogue = next(d for d in training_dialogues(7) if len(d.items) == 4)
    whole, _, _ = encode_dialogue(dialogue, 100_000)
    cut, _, num_taken = encode_dialogue(dialogue, len(whole) - 1)
    assert num_taken == 3
    assert whole[: len(cut)] == cut
    assert encode_dialogue(dialogue, 5) == ([], [], 0)


def _text_of(messages, tools=None, generate=False):
    return TOKENIZER.apply_chat_template(messages, tools=tools, add_generation_prompt=generate, tokenize=False)


def test_content_may_come_in_parts_and_arguments_as_text():
    """Both shapes that OpenAI's API allows give the same prompt."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hi"}]}]
    assert _text_of(parts) == _text_of([{"role": "user", "content": "Say hi"}])
    calls = [
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]
        for arguments in ({"a": 1}, '{"a": 1}')
    ]
    assert _text_of(calls[0]) == _text_of(calls[1])


def test_tools_without_parameters_and_system_text_share_the_first_turn():
    """A function that takes nothing is still on offer."""
    tools = [{"type": "function", "function": {"name": "ping"}}]
    text = _text_of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}], tools, True)
    assert text.startswith("<|im_start|>system\nBe brief.\nTools: ping()<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"x": {}}}}},
        {"anyOf": [{"type": "object", "properties": {"x": {}}}, {"type": "object"}]},
        {"type": "object", "properties": None},
        {"type": "object", "properties": ["x"]},
    ],
    ids=["object", "empty", "ref", "anyOf", "null", "list"],
)
def test_a_tool_whose_schema_names_no_properties_is_on_offer(schema):
    """By its name; a function beside it is shown as ever."""
    named = {"type": "object", "properties": {"keys": {}, "b": {}}}
    functions = [{"name": "ping", "parameters": schema}, {"name": "f", "parameters": named}]
    text = _text_of([{"role": "user", "content": "x"}], [{"type": "function", "function": one} for one in functions])
    assert text.startswith("<|im_start|>system\nTools: ping(), f(keys, b)<|im_end|>\n")


def test_an_unknown_role_is_refused_by_name():
    """A misspelt role is an error, not a silent omission."""
    with pytest.raises(TemplateError, match="robot"):
        _text_of([{"role": "robot", "content": "x"}])
