"""Items as the messages that templates know, and as they are kept."""

import json

import pytest
from pydantic import TypeAdapter
from serin_gateway.conversation import Message, ToolCall
from serin_gateway.rest.responses.items import BEFORE, kept_item, script_of, stored_items
from serin_gateway.rest.responses.schemas import Item
from serin_mesh.errors import MeshError

ITEMS = TypeAdapter(list[Item])
ASKED = {"role": "user", "content": "a?"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]}


def call(name: str) -> dict[str, str]:
    """A call of a function without arguments."""
    return {"type": "function_call", "call_id": name, "name": f"f-{name}", "arguments": "{}"}


def gave(name: str, output: object = "1") -> dict[str, object]:
    """What it gave."""
    return {"type": "function_call_output", "call_id": name, "output": output}


def script(*items, instructions: str | None = None):
    """The script of items as a client writes them."""
    parsed = ITEMS.validate_python(list(items))
    return script_of(instructions, [(f"input[{at}]", item) for at, item in enumerate(parsed)])


def assistant(*texts: str, calls: tuple[str, ...] = (), reasoning: str | None = None) -> Message:
    """An assistant's message."""
    return Message(
        "assistant", list(texts), tool_calls=[ToolCall(c, f"f-{c}", "{}") for c in calls], reasoning=reasoning
    )


CASES = {
    "text": ([ASKED], [Message("user", ("a?",))]),
    "parts": (
        [{"role": "developer", "content": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]}],
        [Message("developer", ["x", "y"])],
    ),
    "an answer of everything": (
        [THOUGHT, SAID, call("1"), call("2"), gave("1"), gave("2")],
        [
            assistant("b", calls=("1", "2"), reasoning="hm"),
            Message("tool", ("1",), tool_call_id="1"),
            Message("tool", ("1",), tool_call_id="2"),
        ],
    ),
    "text behind a call": ([call("1"), SAID, gave("1")], [
        assistant("b", calls=("1",)), Message("tool", ("1",), tool_call_id="1")]),
    "two answers": ([SAID, SAID], [assistant("b"), assistant("b")]),
    "two thoughts": ([THOUGHT, SAID, THOUGHT, SAID], [assistant("b", reasoning="hm"), assistant("b", reasoning="hm")]),
    "a loop": (
        [ASKED, call("1"), gave("1", [{"type": "input_text", "text": "x"}]), THOUGHT, call("2"), gave("2"), SAID],
        [
            Message("user", ("a?",)),
            assistant(calls=("1",)),
            Message("tool", ["x"], tool_call_id="1"),
            assistant(calls=("2",), reasoning="hm"),
            Message("tool", ("1",), tool_call_id="2"),
            assistant("b"),
        ],
    ),
    "a thought that led to nothing": ([ASKED, THOUGHT, ASKED], [Message("user", ("a?",)), Message("user", ("a?",))]),
    "a summary": (
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}, SAID],
        [assistant("b", reasoning="s")],
    ),
    "an easy answer": ([{"role": "assistant", "content": "c"}], [assistant("c")]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_items_are_the_messages_of_templates(case):
    """What one answer reasoned, said and called is one message."""
    items, messages = CASES[case]
    found = script(*items)
    assert found.messages == messages
    kept = stored_items(json.dumps([kept_item(item) for item in ITEMS.validate_python(items)]).encode())
    assert [(m.role, list(m.texts)) for m in script_of(None, [(BEFORE, one) for one in kept]).messages] == [
        (m.role, list(m.texts)) for m in messages
    ]


def test_instructions_come_first():
    """As a system message, by their own name."""
    found = script(ASKED, instructions="Be brief.")
    assert found.messages == [Message("system", ("Be brief.",)), Message("user", ("a?",))]
    assert found.places == ["instructions", "input[0]"]


def test_faults_have_the_names_that_clients_wrote():
    """However many items a message was made of."""
    found = script(ASKED, THOUGHT, SAID, call("1"), call("2"), gave("1"), gave("2"), instructions="x")
    assert found.named("messages[0].content") == "instructions"
    assert found.named("messages[1].content") == "input[0].content"
    assert found.named("messages[2].tool_calls[1].arguments") == "input[4].arguments"
    assert found.named("messages[2].tool_calls") == "input[4]"
    assert found.named("messages[2].content") == "input[2].content"
    assert found.named("messages[2].reasoning_content") == "input[1].content"
    assert found.named("messages[3].tool_call_id") == "input[5].call_id"
    assert (found.named("messages"), found.named("tools[0].name")) == ("input", "tools[0].name")


@pytest.mark.parametrize(
    ("items", "parameter", "words"),
    [
        ([ASKED, gave("9")], "input[1].call_id", "no function_call '9'"),
        ([ASKED, call("1"), gave("1"), gave("1")], "input[3].call_id", "function_call '1' has its output already"),
        ([gave("1"), call("1")], "input[0].call_id", "no function_call '1'"),
        ([ASKED, call("1")], "input[1]", "no function_call_output answers function_call '1'"),
        ([call("1"), call("2"), gave("1"), ASKED], "input[1]", "function_call '2'"),
    ],
    ids=["no call", "two outputs", "too early", "no output", "one of two"],
)
def test_calls_and_outputs_belong_together(items, parameter, words):
    """One without the other is refused by name."""
    with pytest.raises(MeshError, match=words) as refused:
        script(*items)
    assert refused.value.metadata["parameter"] == parameter


def test_kept_items_have_identifiers_and_lists():
    """As they are listed: an item's own identifier stays."""
    bodies = [
        kept_item(item)
        for item in ITEMS.validate_python(
            [ASKED, {"role": "assistant", "content": "b", "id": "msg_1"}, THOUGHT, call("1"), gave("1")]
        )
    ]
    assert bodies[0]["content"] == [{"type": "input_text", "text": "a?"}]
    assert bodies[1]["id"] == "msg_1"
    assert bodies[1]["content"][0]["type"] == "output_text"
    assert [body["id"].split("_")[0] for body in bodies] == ["msg", "msg", "rs", "fc", "fco"]
    assert {body["status"] for body in bodies} == {"completed"}
    assert bodies[2]["content"] == THOUGHT["content"]
