"""What an answer that calls tools must be, family by family: calls of what is offered, that follow schemas."""

import json
from dataclasses import replace

import pytest
from llguidance import LLMatcher
from serin_tokenizer_svc.answer_form import find_form
from serin_tokenizer_svc.call_grammar import call_grammar
from serin_tokenizer_svc.conversation import Conversation, ToolSchema, Turn
from serin_tokenizer_svc.grammar_child import begin
from serin_tokenizer_svc.grammar_language import translate
from serin_tokenizer_svc.grammar_trial import LIMITS, Vocabulary, attempt

MARKS = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "[THINK]", "[/THINK]", "<tool_call>")
SPECIAL = {mark: 256 + at for at, mark in enumerate(MARKS) if mark != "<tool_call>"}
TOKENS = [*(bytes([byte]) for byte in range(256)), *(mark.encode() for mark in MARKS)]
VOCABULARY = Vocabulary(TOKENS, list(SPECIAL.values()))
ADDED = {mark: (256 + at, mark in SPECIAL) for at, mark in enumerate(MARKS)}

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Lima", "Rome"]}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
WRITTEN = {
    "hermes": "<tool_call>",
    "llama": "<|python_tag|>",
    "mistral": "[TOOL_CALLS][ARGS]",
    "mistral list": "[TOOL_CALLS] [",
    "generic": "Tools",
}
FORMS = {name: find_form({"tools"}, written, ADDED) for name, written in WRITTEN.items()}
THINKS = {
    "hermes": find_form({"tools"}, "<tool_call> <think> </think>", ADDED),
    "mistral": find_form({"tools"}, "[TOOL_CALLS][ARGS] [THINK] [/THINK]", ADDED),
    "generic": find_form({"tools"}, "Tools <think> </think>", ADDED),
    "special generic": find_form({"tools"}, "Tools [THINK] [/THINK]", ADDED),
}


def schemas(**given):
    """Tools by name, strict ones."""
    return tuple(
        ToolSchema(name, schema, True, f"tools[{at}].parameters") for at, (name, schema) in enumerate(given.items())
    )


TOOLS = schemas(weather=CITY, ping=None)


def asked(begun=None, *, has_one_call=False, tools=TOOLS):
    """A conversation with these tools."""
    return Conversation((Turn("user", ("x",)),), begun_call=begun, schemas=tools, has_one_call=has_one_call)


def matcher(conversation, form):
    """Follows the answer to a conversation, once the grammar has passed its trial."""
    source = call_grammar(conversation, form)
    assert source is not None
    grammar = translate(source).lark
    attempt(grammar, VOCABULARY)
    return LLMatcher(VOCABULARY.inner, grammar, limits=LIMITS, log_level=0)


def spelled(text):
    """Ids of a text, with its marks as the tokens that they are."""
    ids, rest = [], text
    while rest:
        mark = next((mark for mark in MARKS if rest.startswith(mark)), None)
        ids += list(rest[0].encode()) if mark is None else [ADDED[mark][0]]
        rest = rest[len(mark) if mark else 1 :]
    return ids


def outcome(followed, ids):
    """Whether ids can be said: "whole", "begun" where more must follow, or "no"."""
    followed = followed.deep_copy()
    if followed.validate_tokens(ids) < len(ids):
        return "no"
    followed.consume_tokens(ids)
    return "whole" if followed.is_accepting() else "begun"


def in_both_spellings(followed, text):
    """The same for marks as tokens and in characters."""
    (found,) = {outcome(followed, ids) for ids in (spelled(text), list(text.encode()))}
    return found


def behind(family, text):
    """What comes behind the beginning of a call, as a family writes its end."""
    return text + {"hermes": "\n</tool_call>", "mistral list": "]"}.get(family, "")


def call(family, name="weather", arguments='{"city": "Lima"}'):
    """A whole call, as a family marks the first one of an answer."""
    text = f'{{"name": "{name}", "{FORMS[family].arguments_key}": {arguments}}}'
    return {
        "hermes": f"<tool_call>\n{text}\n</tool_call>",
        "mistral": f"[TOOL_CALLS]{name}[ARGS]{arguments}",
        "mistral list": f"[TOOL_CALLS] [{text}]",
        "generic": text,
        "llama": text,
    }[family]


def joined(family, *arguments):
    """Several calls."""
    calls = [call(family, arguments=one) for one in arguments]
    if family == "mistral list":
        return ", ".join(calls).replace("], [TOOL_CALLS] [", ", ")
    return {"hermes": "\n", "mistral": ""}.get(family, "; ").join(calls)


@pytest.mark.parametrize("family", FORMS)
def test_a_required_call_follows_its_tools_schema(family):
    """Whichever tool it is of, and each of several; no other tool, nothing before, between or behind."""
    form = FORMS[family]
    beginning = form.begun_call("")
    followed = matcher(asked(""), form)
    for text, wanted in (
        (call(family), "whole"),
        (call(family, "ping", "{}"), "whole"),
        (joined(family, '{"city": "Lima"}', '{"city": "Rome", "days": 3}'), "whole"),
        (call(family, arguments='{"city": "Paris"}'), "no"),
        (call(family, arguments='{"days": 3}'), "no"),
        (call(family, arguments='{"city": "Lima", "days": "3"}'), "no"),
        (call(family, "ping", '{"city": "Lima"}'), "no"),
        (call(family, "remove", "{}"), "no"),
        (joined(family, '{"city": "Lima"}', '{"city": "Paris"}'), "no"),
        (f"{call(family)} So.", "no"),
        (call(family)[: len(beginning) + 3], "begun"),
    ):
        assert text.startswith(beginning)
        assert in_both_spellings(followed, text.removeprefix(beginning)) == wanted, text


@pytest.mark.parametrize("family", FORMS)
def test_a_named_or_single_call_is_the_only_one(family):
    """The answer ends with it by itself; the prompt has named the tool."""
    form = FORMS[family]
    for conversation, begun in ((asked("weather"), "weather"), (asked("", has_one_call=True), "")):
        followed = matcher(conversation, form)
        beginning = form.begun_call(begun)
        rest = call(family).removeprefix(beginning)
        rest = rest.removesuffix("\n</tool_call>")
        assert in_both_spellings(followed, rest) == "whole"
        ended = followed.deep_copy()
        ended.consume_tokens(spelled(rest))
        assert ended.is_stopped()
        more = joined(family, '{"city": "Lima"}', '{"city": "Lima"}').removeprefix(beginning)
        assert in_both_spellings(followed, more) == "no"
        assert in_both_spellings(followed, rest.replace("Lima", "Paris")) == "no"


@pytest.mark.parametrize("family", FORMS)
def test_text_is_free_until_a_call_is_marked(family):
    """The model decides; what is a call then follows its schema."""
    followed = matcher(asked(), FORMS[family])
    for text, wanted in (
        ("", "whole"),
        ("So {it} is <b>, [1].", "whole"),
        (call(family), "whole"),
        (joined(family, '{"city": "Lima"}', '{"city": "Rome"}'), "whole"),
        (call(family, arguments='{"city": "Paris"}'), "no"),
        (call(family, "remove", "{}"), "no"),
        (joined(family, '{"city": "Lima"}', '{"city": "Paris"}'), "no"),
        (call(family)[:-3], "begun"),
    ):
        assert in_both_spellings(followed, text) == wanted, text


@pytest.mark.parametrize(
    ("family", "text", "wanted"),
    [
        ("hermes", f"So. {call('hermes')} And.", "whole"),
        ("hermes", "So. <tool_call> is how", "no"),
        ("mistral", f"So. {call('mistral')}", "whole"),
        ("mistral", "So. [TOOL_CALLS] is how", "no"),
        ("mistral", 'So. [TOOL_CALLS]weather[CALL_ID]abc[ARGS]{"city": "Lima"}', "whole"),
        ("llama", f"So. <|python_tag|>{call('llama')}", "whole"),
        ("llama", "So. <|python_tag|>print(1)", "no"),
        ("generic", f"So. {call('generic')[:-20]}", "whole"),
        ("generic", f"[{call('generic')}]", "whole"),
        ("generic", '{"temperature": 3}', "no"),
    ],
)
def test_a_call_may_come_behind_text_where_its_family_marks_it(family, text, wanted):
    """A mark begins one and nothing else; without marks only an answer that begins as JSON is one."""
    assert in_both_spellings(matcher(asked(), FORMS[family]), text) == wanted


@pytest.mark.parametrize("family", THINKS)
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_call_may_come_behind_reasoning(family, is_begun):
    """Whose marks are text or special tokens, and which the prompt may have begun."""
    form = replace(THINKS[family], reasoning_begun=is_begun)
    mark_open, mark_close = form.reasoning
    followed = matcher(asked(), form)
    thought = f"{'' if is_begun else mark_open}A {{bird}}?{mark_close}\n"
    for text, wanted in (
        (f"{thought}So.", "whole"),
        (thought + call(family.removeprefix("special ")), "whole"),
        (thought + call(family.removeprefix("special "), arguments='{"city": "Paris"}'), "no"),
    ):
        assert outcome(followed, spelled(text)) == wanted, text


def test_tools_that_are_not_strict_promise_less():
    """Free where the model decides; what can be enforced of a schema where a call is required."""
    odd = {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}
    loose = replace(TOOLS[0], is_strict=False, schema={"type": "object", "properties": {"a": odd}})
    assert call_grammar(asked(tools=(loose,)), FORMS["hermes"]) is None
    beside = matcher(asked(tools=(loose, TOOLS[1])), FORMS["hermes"])
    assert in_both_spellings(beside, call("hermes", arguments='{"a": "?"}')) == "whole"
    required = matcher(asked("weather", tools=(loose,)), FORMS["hermes"])
    assert in_both_spellings(required, ' {"a": [1, 1]}}') == "whole"
    assert in_both_spellings(required, ' {"a": "?"}}') == "no"


@pytest.mark.parametrize("schema", [{}, {"type": ["object", "null"]}, {"$ref": "#/$defs/a", "$defs": {"a": CITY}}])
def test_arguments_are_an_object_whatever_their_schema_says(schema):
    """One that says nothing about that is one of objects."""
    followed = matcher(asked("f", tools=schemas(f=schema)), FORMS["hermes"])
    assert in_both_spellings(followed, ' {"city": "Rome"}}') == "whole"
    assert in_both_spellings(followed, " null}") == "no"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "are an object"),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"type": "object", "x-guidance": {}}, "reserved"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "#/required: 'a': allows no text"),
    ],
)
def test_the_tool_to_blame_is_named(schema, words):
    """A schema of which a part cannot be enforced, among others."""
    _, answer = begin({"tokens": [token.decode("latin-1") for token in TOKENS], "special": list(SPECIAL.values())})
    source = call_grammar(
        asked("", tools=(*TOOLS, replace(TOOLS[0], name="g", schema=schema, parameter="here"))), FORMS["hermes"]
    )
    found = answer({"kind": source.kind, "text": source.text, "lenient": False})
    assert words in found["refused"], found
    assert found["parameter"] == "here"


def test_a_schema_that_is_an_object_member_by_name_is_no_rule():
    """What a caller writes stays inside its JSON: names and texts that look like rules change nothing."""
    hostile = {"type": "object", "properties": {'a"\nstart: /x/\n': {"const": "}\nws: /y/"}}}
    followed = matcher(asked("f", tools=schemas(f=hostile)), FORMS["generic"])
    assert (
        in_both_spellings(
            followed, f" {json.dumps({'a' + chr(34) + chr(10) + 'start: /x/' + chr(10): '}' + chr(10) + 'ws: /y/'})}}}"
        )
        == "whole"
    )
    assert in_both_spellings(followed, "x") == "no"
