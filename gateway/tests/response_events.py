"""The grammar of a Responses stream: follows events as a client would, and fails where one is out of place.

Knows the API's events and nothing about how they are made.
"""

import json
from typing import Any

Event = dict[str, Any]

_ENDS = {"completed", "incomplete", "failed"}
_TEXTS = {
    "output_text": ("message", "response.output_text"),
    "reasoning_text": ("reasoning", "response.reasoning_text"),
}


def read_events(text: str) -> list[Event]:
    """The events of a stream; each names its type twice, alike."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        head, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        events.append(event)
    return events


def check_stream(events: list[Event]) -> Event:
    """The response that a well-formed stream ends with; all that was told before is in it."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, begun, *middle, end = events
    assert (created["type"], begun["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == begun["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    response = end["response"]
    assert end["type"] == f"response.{response['status']}"
    assert response["status"] in _ENDS
    assert response["id"] == created["response"]["id"]
    assert (response["status"] == "failed") == (response["error"] is not None)
    assert (response["status"] == "incomplete") == (response["incomplete_details"] is not None)
    items, rest = check_items(middle)
    if response["status"] == "failed":
        assert response["output"][: len(items)] == items
        assert len(response["output"]) == len(items) + bool(rest)
    else:
        assert (response["output"], rest) == (items, [])
        assert items
    return response


def check_items(events: list[Event]) -> tuple[list[Event], list[Event]]:
    """The items that were told whole, in order, and the events of one that was not."""
    items: list[Event] = []
    at = 0
    while at < len(events):
        end = next((n for n in range(at, len(events)) if events[n]["type"] == "response.output_item.done"), None)
        if end is None:
            return items, events[at:]
        items.append(_check_item(events[at : end + 1], len(items)))
        at = end + 1
    return items, []


def _check_item(events: list[Event], index: int) -> Event:
    added, *middle, done = events
    item = done["item"]
    assert added["type"] == "response.output_item.added"
    assert all(event["output_index"] == index for event in events)
    assert (added["item"]["id"], added["item"]["type"]) == (item["id"], item["type"])
    assert added["item"]["status"] == "in_progress"
    assert all(event["item_id"] == item["id"] for event in middle)
    if item["type"] == "function_call":
        _check_call(added["item"], middle, item)
    else:
        _check_text(added["item"], middle, item)
    return item


def _check_call(begun: Event, events: list[Event], item: Event) -> None:
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"response.function_call_arguments.delta"}
    assert done["type"] == "response.function_call_arguments.done"
    assert begun["arguments"] == ""
    assert "".join(event["delta"] for event in deltas) == done["arguments"] == item["arguments"]
    assert (begun["call_id"], begun["name"]) == (item["call_id"], item["name"])
    assert item["status"] in ("completed", "incomplete")
    if item["status"] == "completed":
        json.loads(item["arguments"])


def _check_text(begun: Event, events: list[Event], item: Event) -> None:
    opened, *deltas, told, closed = events
    (part,) = item["content"]
    item_type, name = _TEXTS[part["type"]]
    assert item["type"] == item_type
    assert begun["content"] == []
    assert (opened["type"], closed["type"]) == ("response.content_part.added", "response.content_part.done")
    assert opened["part"] == {**part, "text": ""} | ({"logprobs": []} if "logprobs" in part else {})
    assert all(event["type"] == f"{name}.delta" for event in deltas)
    assert told["type"] == f"{name}.done"
    assert {event["content_index"] for event in events} == {0}
    assert "".join(event["delta"] for event in deltas) == told["text"] == part["text"]
    assert closed["part"] == part
    if "logprobs" in part:
        assert [one for event in deltas for one in event["logprobs"]] == told["logprobs"] == part["logprobs"]
