"""Output items as they grow: whatever happens in whatever pieces, the events follow the API's grammar."""

from hypothesis import given
from hypothesis import strategies as st
from response_events import check_items
from serin_gateway.events import (
    ChoiceEnded,
    FinishReason,
    ReasoningChunk,
    TextChunk,
    TextLogprob,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
)
from serin_gateway.rest.responses.output import Output

texts = st.text(max_size=5)
logprobs = st.lists(st.builds(TextLogprob, texts, st.binary(max_size=3), st.floats(-9, 0)), max_size=2)


def call(call_id, name, pieces, is_whole):
    """The events of a call."""
    grew = [ToolCallGrew(0, 0, piece) for piece in pieces]
    return [ToolCallBegun(0, 0, str(call_id), name), *grew, ToolCallEnded(0, 0, is_whole)]


WHOLE, BROKEN = ['{"a"', ": ", "1}"], ['{"a']
happenings = st.lists(
    st.one_of(
        st.builds(TextChunk, st.just(0), texts, st.just([]), logprobs).map(lambda one: [one]),
        st.builds(ReasoningChunk, st.just(0), st.text(min_size=1, max_size=5)).map(lambda one: [one]),
        st.builds(call, st.uuids(), texts, st.just(WHOLE), st.just(value=True)),
        st.builds(call, st.uuids(), texts, st.just(BROKEN), st.just(value=False)),
    ),
    max_size=8,
).map(lambda runs: [event for run in runs for event in run])


@given(events=happenings, reason=st.sampled_from(FinishReason))
def test_any_answer_is_told_by_the_grammar(events, reason):
    """All that was said is in the items, in order; nothing stays open; what was cut says so."""
    output = Output()
    told = [one for event in [*events, ChoiceEnded(0, reason)] for one in output.take(event)]
    items, rest = check_items([{"type": name, **members} for name, members in told])
    assert rest == []
    assert items == output.items == output.items_so_far
    assert items
    said = "".join(event.text for event in events if isinstance(event, TextChunk | ReasoningChunk))
    shown = [item["content"][0] for item in items if item["type"] != "function_call"]
    assert "".join(part["text"] for part in shown) == said
    begun = [event.name for event in events if isinstance(event, ToolCallBegun)]
    ended = [event.is_whole for event in events if isinstance(event, ToolCallEnded)]
    calls = [item for item in items if item["type"] == "function_call"]
    assert [item["name"] for item in calls] == begun
    assert [item["status"] == "completed" for item in calls] == ended
    assert {item["arguments"] for item in calls} <= {"".join(WHOLE), "".join(BROKEN)}
    is_cut = reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)
    assert bool(output.cut_by) == is_cut
    others = [item["status"] for item in items if item["type"] != "function_call"]
    assert others[:-1] == ["completed"] * (len(others) - 1)
    if items[-1]["type"] != "function_call":
        assert items[-1]["status"] == ("incomplete" if is_cut else "completed")
    assert len({item["id"] for item in items}) == len(items)


@given(events=happenings)
def test_what_there_is_so_far_can_be_told_at_any_moment(events):
    """Items that are done, and the open one as incomplete."""
    output = Output()
    for event in events:
        list(output.take(event))
        *done, last = output.items_so_far or [None]
        assert done == output.items[: len(done)]
        assert last is None or last in output.items or last["status"] == "incomplete"
