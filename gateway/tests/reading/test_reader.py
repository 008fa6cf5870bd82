"""Reasoning, text and calls in one answer, however it is cut."""

import pytest
from made_calls import Broke, made
from serin_gateway.conversation import Conversation, Message
from serin_gateway.reading.call_text import Called
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.reading.parts import CallBegun, CallGrew, Reasoned, Said
from serin_gateway.reading.reader import AnswerReader
from serin_gateway.reading.reading import Reading, reading_of
from serin_gateway.tokenizer import Decoded
from serin_gateway.tools import ChoiceMode, Tool, ToolChoice

THINKS = AnswerForm(CallForm.HERMES, "<think>", "</think>", reasoning_close_ids=(9,))
BEGUN = AnswerForm(CallForm.HERMES, "<think>", "</think>", reasoning_begun=True)
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
F = Called("f", "{}")


def in_pieces(form, pieces, tools=("f",), *, grows=False):
    """The parts of an answer that comes in pieces."""
    reader = AnswerReader(form, tools, grows=grows)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    return made(parts + reader.end())


@pytest.mark.parametrize(
    ("form", "text", "parts"),
    [
        (THINKS, "<think>\nLet me see.\n</think>\n\nIt is 3.", [Reasoned("Let me see."), Said("It is 3.")]),
        (THINKS, "\n<think>a</think>" + CALL, [Reasoned("a"), F]),
        (THINKS, f"<think>{CALL}</think>no", [Reasoned(CALL), Said("no")]),
        (THINKS, "<think>cut <b>short</", [Reasoned("cut <b>short</")]),
        (THINKS, "<think>", []),
        (THINKS, "<think></think>", []),
        (THINKS, "<think>\n\n</think>\n\nYes", [Said("Yes")]),
        (THINKS, " No <think>a</think>", [Said(" No <think>a</think>")]),
        (THINKS, "<thin", [Said("<thin")]),
        (THINKS, "  ", [Said("  ")]),
        (THINKS, "<think>a</think>b<think>c</think>", [Reasoned("a"), Said("b<think>c</think>")]),
        (BEGUN, "a b\n</think>\n\nYes", [Reasoned("a b"), Said("Yes")]),
        (BEGUN, "<think>a</think>b", [Reasoned("<think>a"), Said("b")]),
        (BEGUN, "all of it", [Reasoned("all of it")]),
        (AnswerForm(CallForm.HERMES, beginning='<tool_call>\n{"name": "'), 'f", "arguments": {}}', [F]),
        (AnswerForm(CallForm.HERMES, beginning='<tool_call>\n{"name": "'), "g", []),
        (AnswerForm(CallForm.NONE, "[THINK]", "[/THINK]"), "[THINK]a[/THINK]b", [Reasoned("a"), Said("b")]),
    ],
)
def test_an_answer_is_read_alike_however_it_is_cut(form, text, parts):
    """In one piece, in two at every place, and character by character; also if its calls are told as they grow."""
    for grows in (False, True):
        assert in_pieces(form, text, grows=grows) == parts
        for at in range(len(text) + 1):
            assert in_pieces(form, [text[:at], text[at:]], grows=grows) == parts


@pytest.mark.parametrize("form", [THINKS, BEGUN, AnswerForm(CallForm.HERMES)])
def test_a_call_grows_behind_reasoning(form):
    """Reasoning, text, then a call piece by piece; cut in it, what there is of it was told."""
    thought = "" if not form.reasoning_open else "a</think>" if form.reasoning_begun else "<think>a</think>"
    before = [Reasoned("a")] * bool(thought)
    text = f'{thought}b <tool_call>{{"name": "f", "arguments": {{"x": 12'
    for at in range(len(text) + 1):
        told = in_pieces(form, [text[:at], text[at:]], grows=True)
        assert told == [*before, Said("b"), Broke("f", '{"x": 12')]
    begun = AnswerForm(CallForm.HERMES, beginning='<tool_call>\n{"name": "f", "arguments":')
    reader = AnswerReader(begun, ("f",), grows=True)
    assert reader.feed(' {"x"') == [CallBegun("f"), CallGrew('{"x"')]


def test_without_tools_a_call_is_text():
    """Nothing may be called: what the model writes is shown."""
    assert in_pieces(THINKS, [CALL], ()) == [Said(CALL)]


def conversation(mode=ChoiceMode.AUTO, *, single_call=False):
    """One question, with one tool."""
    choice = ToolChoice(mode, single_call=single_call)
    return Conversation([Message("user", ("x",))], tools=[Tool("f")], tool_choice=choice)


def test_only_what_can_be_read_is():
    """A plain prompt, a template without tools, tools that are not to be called: all is text."""
    assert reading_of(THINKS, None) is None
    assert reading_of(AnswerForm(), conversation()) is None
    assert reading_of(AnswerForm(CallForm.HERMES), conversation(ChoiceMode.NONE)) is None
    assert reading_of(AnswerForm(CallForm.HERMES), conversation()) is not None


@pytest.mark.parametrize("size", [1, 3, 40])
def test_tokens_of_reasoning_are_those_up_to_its_mark(size):
    """However many tokens one piece of news brings; without the mark's id, those of the news."""
    texts = ["<think>", "a", "b", "</think>", "\n", "c", "d"]
    ids = [7, 1, 2, 9, 4, 5, 6]
    reading = Reading(THINKS, conversation())
    for at in range(0, len(ids), size):
        end = min(at + size, len(ids))
        reading.read(Decoded("".join(texts[at:end]), end), end == len(ids), ids[:end])
    assert reading.num_reasoning_tokens == 4
    other = Reading(AnswerForm(CallForm.HERMES, "<think>", "</think>"), conversation())
    for at, text in enumerate(texts):
        other.read(Decoded(text, at + 1), False, ids[: at + 1])
    assert other.num_reasoning_tokens == 4


def test_a_single_call_completes_an_answer():
    """What comes behind it is nobody's."""
    for grows in (False, True):
        reading = Reading(AnswerForm(CallForm.HERMES), conversation(single_call=True), grows=grows)
        first = reading.read(Decoded("a " + CALL[:-15], 1), False, [1])
        assert first == [Said("a"), *([CallBegun("f"), CallGrew("{")] if grows else [])]
        assert not reading.is_complete
        assert made(first + reading.read(Decoded(CALL[-15:] + CALL, 2), False, [1, 2])) == [Said("a"), F]
        assert reading.is_complete
