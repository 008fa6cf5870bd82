"""Calls are read alike however their text is cut; what is no call is text, to the last character."""

import json
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_calls import Broke, made
from serin_gateway.reading.call_text import Called
from serin_gateway.reading.calls import CallReader
from serin_gateway.reading.form import CallForm
from serin_gateway.reading.marks import MARKS
from serin_gateway.reading.parts import CallBegun, CallEnded, CallGrew, Said, joined

TOOLS = {"get_weather", "f", "ping"}
WEATHER = Called("get_weather", '{"city": "Oslo"}')
NESTED = (
    '{"a": {"b": [1, {"c": "}"}]}, "q": "\\"}{\\\\", "u": "Köln 🙂 \\ud83d\\ude42 \\u00e9", '
    '"n": 1.0, "big": 123456789012345678901}'
)
DEEP = '{"a":' * 63 + "1" + "}" * 63


def whole(form, text, tools=TOOLS, **how):
    """What a text that comes in one piece says and calls."""
    return in_pieces(form, [text], tools, **how)


def in_pieces(form, pieces, tools=TOOLS, **how):
    """What a text that comes in pieces says and calls."""
    reader = CallReader(form, tools, **how)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    return made(parts + reader.end())


def cuts(text):
    """Whole, character by character, in two at every place, and in pieces of every size up to seven."""
    yield [text]
    yield list(text)
    for at in range(len(text) + 1):
        yield [text[:at], text[at:]]
    for size in range(2, 8):
        yield [text[at : at + size] for at in range(0, len(text), size)]


HERMES = {
    "one call": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        [WEATHER],
    ),
    "text before": (
        'Let me see.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        [Said("Let me see."), WEATHER],
    ),
    "text between and after": (
        'A <tool_call>{"name": "ping", "arguments": {}}</tool_call> B\n'
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>\nC  ',
        [Said("A"), Called("ping", "{}"), Said(" B"), Called("f", '{"x": 1}'), Said("\nC  ")],
    ),
    "calls in a row": (
        '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>\n'
        '{"name": "f", "arguments": {"x": 2}}\n</tool_call>\n',
        [Called("f", '{"x": 1}'), Called("f", '{"x": 2}')],
    ),
    "nested, escaped, unicode": (
        f'<tool_call>{{"name": "f", "arguments": {NESTED}}}</tool_call>',
        [Called("f", NESTED)],
    ),
    "arguments come first": (
        '<tool_call>{"arguments": {"name": "g", "city": "Oslo"} , "name": "get_weather"}</tool_call>',
        [Called("get_weather", '{"name": "g", "city": "Oslo"}')],
    ),
    "arguments as text": (
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": \\"y\\"}"}</tool_call>',
        [Called("f", '{"x": "y"}')],
    ),
    "no arguments": ('<tool_call>{"name": "ping"}</tool_call>', [Called("ping", "{}")]),
    "a mark inside a string": (
        '<tool_call>{"name": "f", "arguments": {"x": "</tool_call><tool_call>"}}</tool_call>',
        [Called("f", '{"x": "</tool_call><tool_call>"}')],
    ),
    "no closing mark": ('<tool_call>{"name": "f", "arguments": {}}', [Called("f", "{}")]),
    "half a closing mark": ('<tool_call>{"name": "f", "arguments": {}}\n</tool_', [Called("f", "{}")]),
    "no closing mark before the next": (
        '<tool_call>{"name": "f", "arguments": {}}<tool_call>{"name": "ping", "arguments": {}}</tool_call>',
        [Called("f", "{}"), Called("ping", "{}")],
    ),
    "a list of calls": (
        '<tool_call>[{"name": "f", "arguments": {"x": [1, 2]}}, {"name": "ping", "arguments": {}}]</tool_call>',
        [Called("f", '{"x": [1, 2]}'), Called("ping", "{}")],
    ),
    "OpenAI's own shape": (
        '<tool_call>{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}</tool_call>',
        [Called("f", '{"x": 1}')],
    ),
}
NO_CALLS = {
    "plain": "Nothing to do here. {}",
    "only whitespace": "  \n ",
    "marks that never come": "a < b <tool <tool_cal l> <<tool_call",
    "unknown tool": '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "name is no text": '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
    "arguments are a list": '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
    "arguments are no JSON": '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
    "single quotes": "<tool_call>{'name': 'f', 'arguments': {}}</tool_call> and on",
    "trailing comma": '<tool_call>{"name": "f", "arguments": {},}</tool_call>',
    "a brace too few": '<tool_call>\n{"name": "f", "arguments": {"x": 1}\n</tool_call> and on',
    "a brace of the wrong kind": '<tool_call>{"name": "f", "arguments": {"x": 1]}</tool_call>',
    "a quote too few": '<tool_call>\n{"name": "f", "arguments": {"x": "1}}\n</tool_call>',
    "a quote too many": '<tool_call>{"name": "f", "arguments": {"x": "a"b"}}</tool_call>',
    "a raw newline in a string": '<tool_call>{"name": "f", "arguments": {"x": "a\nb"}}</tool_call>',
    "no number": '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
    "half a character": '<tool_call>{"name": "f", "arguments": {"x": "\\ud83d"}}</tool_call>',
    "no JSON at all": "<tool_call>f(1)</tool_call>",
    "empty": "<tool_call></tool_call>",
    "cut in the name": '<tool_call>\n{"name": "get_we',
    "cut in the arguments": 'Well.\n<tool_call>\n{"name": "f", "arguments": {"x": "a\\',
    "too deep": f'<tool_call>{{"name": "f", "arguments": {{"x": {DEEP}}}}}</tool_call>',
}
LLAMA = {
    "bare": ('{"name": "get_weather", "parameters": {"city": "Oslo"}}', [WEATHER]),
    "marked": ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}', [WEATHER]),
    "several": (
        ' {"name": "f", "parameters": {"x": 1}}; {"name": "f", "parameters": {"x": 2}}\n'
        '{"name": "ping", "parameters": {}};',
        [Called("f", '{"x": 1}'), Called("f", '{"x": 2}'), Called("ping", "{}")],
    ),
    "with its type": ('{"type": "function", "name": "f", "parameters": {}}', [Called("f", "{}")]),
    "text first": ('Here: {"name": "f", "parameters": {}}', [Said('Here: {"name": "f", "parameters": {}}')]),
    "an answer in JSON": ('{"name": "Ada", "age": 36} is it', [Said('{"name": "Ada", "age": 36} is it')]),
    "a tool's name and nothing to do with it": ('{"name": "ping"}', [Said('{"name": "ping"}')]),
    "python behind the mark": ("<|python_tag|>print(1)", [Said("<|python_tag|>print(1)")]),
    "a call and text": ('{"name": "f", "parameters": {}}; so', [Called("f", "{}"), Said("; so")]),
}
MISTRAL = {
    "a list": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "ping", "arguments": {}}]',
        [WEATHER, Called("ping", "{}")],
    ),
    "by name": ('[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}', [WEATHER]),
    "by name, several": (
        'Well. [TOOL_CALLS]f[CALL_ID]abc123DEF[ARGS]{"x": 1}[TOOL_CALLS]ping[ARGS]{}',
        [Said("Well."), Called("f", '{"x": 1}'), Called("ping", "{}")],
    ),
    "by name without a mark": ('[TOOL_CALLS]f{"x": "}"}', [Called("f", '{"x": "}"}')]),
    "unknown": ("[TOOL_CALLS]rm[ARGS]{} on", [Said("[TOOL_CALLS]rm[ARGS]{} on")]),
    "one of the list is unknown": (
        '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "rm", "arguments": {}}]',
        [Said('[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "rm", "arguments": {}}]')],
    ),
    "no header": ("[TOOL_CALLS]no call, really", [Said("[TOOL_CALLS]no call, really")]),
    "an endless header": ("[TOOL_CALLS]" + "f" * 300 + "{}", [Said("[TOOL_CALLS]" + "f" * 300 + "{}")]),
    "arguments are a list": ("[TOOL_CALLS]f[ARGS][1]", [Said("[TOOL_CALLS]f[ARGS][1]")]),
    "cut": ('[TOOL_CALLS]f[ARGS]{"x":', [Said('[TOOL_CALLS]f[ARGS]{"x":')]),
}
GENERIC = {
    "an object": ('{"name": "f", "arguments": {"x": 1}}', [Called("f", '{"x": 1}')]),
    "a list": (
        '\n[{"name": "f", "parameters": {"x": 1}}, {"name": "ping", "arguments": {}}]\n',
        [Called("f", '{"x": 1}'), Called("ping", "{}")],
    ),
    "an empty list": ("[]", [Said("[]")]),
    "text": ("Hello [1]", [Said("Hello [1]")]),
}
CASES = [
    *((CallForm.HERMES, name, text, parts) for name, (text, parts) in HERMES.items()),
    *((CallForm.HERMES, name, text, [Said(text)]) for name, text in NO_CALLS.items()),
    *((CallForm.LLAMA, name, text, parts) for name, (text, parts) in LLAMA.items()),
    *((CallForm.MISTRAL, name, text, parts) for name, (text, parts) in MISTRAL.items()),
    *((CallForm.GENERIC, name, text, parts) for name, (text, parts) in GENERIC.items()),
]


BROKEN = {
    "trailing comma": [Called("f", "{}"), Said(",}</tool_call>")],
    "a brace too few": [Called("f", '{"x": 1}'), Said(" and on")],
    "a brace of the wrong kind": [Broke("f", '{"x": '), Said("1]}</tool_call>")],
    "a quote too few": [Broke("f", '{"x": "1}}')],
    "a quote too many": [Broke("f", '{"x": "a"'), Said('b"}}</tool_call>')],
    "a raw newline in a string": [Broke("f", '{"x": "a'), Said('\nb"}}</tool_call>')],
    "no number": [Broke("f", '{"x": '), Said("NaN}}</tool_call>")],
    "half a character": [Broke("f", '{"x": "'), Said('\\ud83d"}}</tool_call>')],
    "cut in the arguments": [Said("Well."), Broke("f", '{"x": "a\\')],
    "too deep": [Broke("f", '{"x": ' + '{"a":' * 62), Said('{"a":1' + "}" * 65 + "</tool_call>")],
    "one of the list is unknown": [Called("f", "{}"), Said('}, {"name": "rm", "arguments": {}}]')],
    "cut": [Broke("f", '{"x":')],
}
"""Of the texts that are no calls, those that seem to be as they grow: what is told then."""


@pytest.mark.parametrize(("form", "name", "text", "parts"), CASES, ids=[case[1] for case in CASES])
def test_a_text_is_read_alike_however_it_is_cut(form, name, text, parts):
    """And a call that is told as it grows is the call that is told when it is whole."""
    grown = BROKEN.get(name) or parts
    for pieces in cuts(text):
        assert in_pieces(form, pieces) == parts
        assert in_pieces(form, pieces, grows=True) == grown


@pytest.mark.parametrize(("form", "name", "text", "parts"), CASES, ids=[case[1] for case in CASES])
def test_an_answer_of_calls_alone_has_no_text(form, name, text, parts):
    """The same calls, and what began as one; what is left of it is nobody's."""
    for pieces in ([text], list(text)):
        for grows, told in ((False, parts), (True, BROKEN.get(name) or parts)):
            calls = [part for part in told if not isinstance(part, Said)]
            assert in_pieces(form, pieces, grows=grows, only_calls=True) == calls


PING = '{"name": "ping", "arguments": {}}'
ENDS = {
    "whole": (CallForm.HERMES, f"<tool_call>{PING}</tool_call>", False),
    "half a closing mark": (CallForm.HERMES, f"<tool_call>{PING}\n</tool", False),
    "text behind": (CallForm.HERMES, f"<tool_call>{PING}</tool_call> so < 5", False),
    "another unknown": (
        CallForm.HERMES,
        f'<tool_call>{PING}</tool_call><tool_call>{{"name": "rm"}}</tool_call>',
        False,
    ),
    "half a mark": (CallForm.HERMES, f"<tool_call>{PING}</tool_call>\n<tool_", True),
    "a mark": (CallForm.HERMES, f"<tool_call>{PING}</tool_call>\n<tool_call>\n", True),
    "in a name": (CallForm.HERMES, f'<tool_call>{PING}</tool_call><tool_call>{{"name": "pi', True),
    "in arguments": (CallForm.HERMES, f'<tool_call>{PING}</tool_call><tool_call>{PING[:-2]}"a', True),
    "in a list": (CallForm.MISTRAL, f"[TOOL_CALLS] [{PING}, {PING[:9]}", True),
    "in a header": (CallForm.MISTRAL, "[TOOL_CALLS]ping[ARGS]{}[TOOL_CALLS]pi", True),
    "behind a semicolon": (CallForm.LLAMA, f"{PING}; {PING[:9]}", True),
    "nothing behind a semicolon": (CallForm.LLAMA, f"{PING};", False),
}


@pytest.mark.parametrize(("form", "text", "is_cut"), ENDS.values(), ids=ENDS)
def test_an_end_inside_a_call_is_known(form, text, is_cut):
    """Whether the call was told or not, so that nobody makes the calls before it as if they were all."""
    for pieces in ([text], list(text)):
        for how in ({}, {"grows": True}, {"only_calls": True}, {"grows": True, "only_calls": True}):
            reader = CallReader(form, TOOLS, **how)
            for piece in pieces:
                reader.feed(piece)
            reader.end()
            assert reader.has_broken_off is is_cut, how


def test_every_form_that_can_be_told_has_its_marks():
    """A form that is added needs a reader."""
    assert set(MARKS) == set(CallForm) - {CallForm.NONE}


def test_a_broken_call_does_not_hide_the_next():
    """It is text, and what follows is read on."""
    good = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
    for name, broken in NO_CALLS.items():
        if name not in ("cut in the name", "cut in the arguments", "a quote too many", "marks that never come"):
            found = whole(CallForm.HERMES, f"{broken}\n{good}")
            assert found[-1] == Called("ping", "{}"), name
            assert "".join(part.text for part in found[:-1]) == broken.rstrip(), name


def test_text_goes_through_at_once():
    """Only what may begin a mark waits, and whitespace that may belong to one."""
    reader = CallReader(CallForm.HERMES, TOOLS)
    assert reader.feed("Hello") == [Said("Hello")]
    assert reader.feed(" <tool") == []
    assert reader.feed("box>") == [Said(" <toolbox>")]
    reader = CallReader(CallForm.GENERIC, TOOLS)
    assert reader.feed("\n") == []
    assert reader.feed("So") == [Said("\nSo")]
    assert reader.feed(" {") == [Said(" {")]


def test_a_call_is_there_as_soon_as_it_is_whole():
    """Not only when its closing mark comes."""
    reader = CallReader(CallForm.HERMES, TOOLS)
    assert reader.feed('<tool_call>{"name": "ping", "arguments": {}') == []
    assert reader.feed("}") == [CallBegun("ping"), CallGrew("{}"), CallEnded(is_whole=True)]


def test_a_call_grows_with_its_text():
    """From the brace on that opens its arguments; nothing waits but what may be half of something."""
    reader = CallReader(CallForm.HERMES, TOOLS, grows=True)
    assert reader.feed('<tool_call>{"name": "f", "arguments":') == []
    assert reader.feed(" {") == [CallBegun("f"), CallGrew("{")]
    assert reader.feed('"x": "a <') == [CallGrew('"x": "a ')]
    assert reader.feed("b \\ud83d") == [CallGrew("<b ")]
    assert reader.feed('\\ude42", "n": 1') == [CallGrew('\\ud83d\\ude42", "n": ')]
    assert reader.feed("2}") == [CallGrew("12}")]
    assert reader.feed("}") == [CallEnded(is_whole=True)]
    assert reader.feed("\n</tool_call> so") == [Said(" so")]


@pytest.mark.parametrize(
    ("form", "pieces"),
    [
        (CallForm.HERMES, ['<tool_call>{"name": "f", "arguments": {', '"x": 1}}']),
        (CallForm.LLAMA, ['{"type": "function", "name": "f", "parameters": {', '"x": 1}}']),
        (CallForm.MISTRAL, ['[TOOL_CALLS] [{"name": "f", "arguments": {', '"x": 1}, "id": "a1"}]']),
        (CallForm.MISTRAL, ["[TOOL_CALLS]f[ARGS]{", '"x": 1}']),
        (CallForm.GENERIC, ['[{"name": "f", "arguments": {', '"x": 1}}]']),
    ],
    ids=["hermes", "llama", "mistral's list", "mistral by name", "generic"],
)
def test_calls_of_every_form_grow(form, pieces):
    """However it begins them."""
    reader = CallReader(form, TOOLS, grows=True)
    assert reader.feed(pieces[0]) == [CallBegun("f"), CallGrew("{")]
    assert joined(reader.feed(pieces[1])) == [CallGrew('"x": 1}'), CallEnded(is_whole=True)]


def test_a_mark_in_an_argument_waits_for_its_end():
    """It may end a call whose string was left open: nothing from it on is told before it is known not to."""
    reader = CallReader(CallForm.HERMES, TOOLS, grows=True)
    assert reader.feed('<tool_call>{"name": "f", "arguments": {"x": "a</tool_call> b') == [
        CallBegun("f"),
        CallGrew('{"x": "a'),
    ]
    assert reader.feed(" and on") == []
    assert reader.feed('"}') == [CallGrew('</tool_call> b and on"}')]
    open_ = '<tool_call>{"name": "f", "arguments": {"x": "a</tool_call>'
    assert whole(CallForm.HERMES, open_, grows=True) == [Broke("f", '{"x": "a'), Said("</tool_call>")]


@pytest.mark.parametrize("grows", [False, True])
def test_a_single_call_is_all(grows):
    """What comes behind it is nobody's, in its list too; if it broke off, the rest is text."""
    one = '<tool_call>[{"name": "f", "arguments": {"x": 1}}, {"name": "ping", "arguments": {}}]'
    for pieces in cuts(f"a {one}</tool_call> b {one}"):
        assert in_pieces(CallForm.HERMES, pieces, grows=grows, is_single=True) == [Said("a"), Called("f", '{"x": 1}')]
    broken = '<tool_call>{"name": "f", "arguments": {"x": ]}</tool_call>'
    said = [Broke("f", '{"x": '), Said(f"]}}</tool_call>{one}")] if grows else [Said(broken), Called("f", '{"x": 1}')]
    for pieces in cuts(broken + one):
        assert in_pieces(CallForm.HERMES, pieces, grows=grows, is_single=True) == said


MARKED = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"]
JSON = [
    '{"name": "f", "arguments": {"x": ',
    '{"name": "ping", "parameters": {}}',
    '"y"',
    "}}",
    "}",
    "{",
    "[",
    "]",
    ";",
    '"',
]
PIECES = st.sampled_from([*MARKED, *JSON, "f", " ", "\n", "\\", "é🙂", "<", "x"])


@given(st.lists(PIECES, max_size=14), st.sampled_from(sorted(MARKS, key=lambda form: form.name)), st.integers())
def test_anything_is_read_alike_however_it_is_cut(pieces, form, seed):
    """No text raises; without a call all of it comes back; a call's arguments are an object and stood in the text."""
    text = "".join(pieces)
    cut = random.Random(seed)
    ends = [*sorted(cut.randint(0, len(text)) for _ in range(cut.randint(0, 6))), len(text)]
    cut_text = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    for how in ({}, {"grows": True}, {"is_single": True}, {"grows": True, "is_single": True}):
        parts = whole(form, text, **how)
        assert in_pieces(form, cut_text, **how) == parts
        assert in_pieces(form, text, **how) == parts
        calls = [part for part in parts if isinstance(part, Called)]
        if not calls and not any(isinstance(part, Broke) for part in parts):
            assert "".join(part.text for part in parts) == text
        for call in calls:
            assert isinstance(json.loads(call.arguments_json), dict)
            assert call.name in TOOLS
        assert how.get("grows") or not any(isinstance(part, Broke) for part in parts)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), st.booleans(), st.sampled_from([None, 1]))
@example({"x": "</tool_call><tool_call>", "🙂": "\ud83d".encode("utf-16", "surrogatepass").hex()}, True, None)
def test_any_arguments_come_whole_in_pieces(value, ascii_only, indent):
    """Whatever they hold, however they are written: one piece for nearly every character, and nothing is lost."""
    arguments = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    reader = CallReader(CallForm.HERMES, TOOLS, grows=True)
    parts = [part for char in text for part in reader.feed(char)]
    assert made(parts + reader.end()) == whole(CallForm.HERMES, text) == [Called("f", arguments)]


def test_a_long_answer_of_marks_is_read_in_linear_time():
    """What a model can be made to write: a reader that looks twice at it would still be at it tomorrow."""
    text = '<tool_call>{"' * 20_000
    assert whole(CallForm.HERMES, text) == [Said(text)]
    long = "x" * 200_000
    call = f'<tool_call>{{"name": "f", "arguments": {{"x": "{long}"}}}}</tool_call>'
    pieces = [call[at : at + 50] for at in range(0, len(call), 50)]
    for grows in (False, True):
        assert in_pieces(CallForm.HERMES, pieces, grows=grows) == [Called("f", f'{{"x": "{long}"}}')]
    digits = "1" * 20_000
    cut = f'<tool_call>{{"name": "f", "arguments": {{"x": {digits}, "</tool_call>": "{long}'
    pieces = [cut[at : at + 50] for at in range(0, len(cut), 50)]
    assert in_pieces(CallForm.HERMES, pieces, grows=True)[0] == Broke("f", '{"x": ' + digits[:512])
