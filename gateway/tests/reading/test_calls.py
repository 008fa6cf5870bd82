"""Calls are read alike however their text is cut; what is no call is text, to the last character."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serin_gateway.reading.calls import MARKS, CallReader
from serin_gateway.reading.form import CallForm
from serin_gateway.reading.parts import Called, Said, joined

TOOLS = {"get_weather", "f", "ping"}
WEATHER = Called("get_weather", '{"city": "Oslo"}')
NESTED = (
    '{"a": {"b": [1, {"c": "}"}]}, "q": "\\"}{\\\\", "u": "Köln 🙂 \\ud83d\\ude42 \\u00e9", '
    '"n": 1.0, "big": 123456789012345678901}'
)
DEEP = '{"a":' * 63 + "1" + "}" * 63


def whole(form, text, tools=TOOLS):
    """The parts of a text that comes in one piece."""
    return in_pieces(form, [text], tools)


def in_pieces(form, pieces, tools=TOOLS):
    """The parts of a text that comes in pieces."""
    reader = CallReader(form, tools)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    return joined(parts + reader.end())


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


@pytest.mark.parametrize(("form", "text", "parts"), [(f, t, p) for f, _, t, p in CASES], ids=[c[1] for c in CASES])
def test_a_text_is_read_alike_however_it_is_cut(form, text, parts):
    """Whole, character by character, in two at every place, and in pieces of every size up to seven."""
    assert whole(form, text) == parts
    assert in_pieces(form, text) == parts
    for at in range(len(text) + 1):
        assert in_pieces(form, [text[:at], text[at:]]) == parts
    for size in range(2, 8):
        assert in_pieces(form, [text[at : at + size] for at in range(0, len(text), size)]) == parts


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
    assert reader.feed("}") == [Called("ping", "{}")]


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
    parts = whole(form, text)
    cut = random.Random(seed)
    ends = [*sorted(cut.randint(0, len(text)) for _ in range(cut.randint(0, 6))), len(text)]
    assert in_pieces(form, [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]) == parts
    assert in_pieces(form, text) == parts
    calls = [part for part in parts if isinstance(part, Called)]
    if not calls:
        assert "".join(part.text for part in parts) == text
    for call in calls:
        assert isinstance(json.loads(call.arguments_json), dict)
        assert call.name in TOOLS


def test_a_long_answer_of_marks_is_read_in_linear_time():
    """What a model can be made to write: a reader that looks twice at it would still be at it tomorrow."""
    text = '<tool_call>{"' * 20_000
    assert whole(CallForm.HERMES, text) == [Said(text)]
    long = "x" * 200_000
    call = f'<tool_call>{{"name": "f", "arguments": {{"x": "{long}"}}}}</tool_call>'
    pieces = [call[at : at + 50] for at in range(0, len(call), 50)]
    assert in_pieces(CallForm.HERMES, pieces) == [Called("f", f'{{"x": "{long}"}}')]
