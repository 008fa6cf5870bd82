"""The grammar of `Generate` streams: started, deltas, an end for each choice, summary last.

Works on the events of `WorkerService` and `InferenceService` alike: their cases have the same names.
"""

from collections.abc import Sequence
from typing import Any


def check_grammar(events: Sequence[Any], num_choices: int = 1) -> None:
    """Assert that a finished stream's events come in the order that the contract says."""
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started", kinds
    assert kinds[-1] == "summary", kinds
    middle = kinds[1:-1]
    assert set(middle) <= {"delta", "choice_finished"}, kinds
    ended: set[int] = set()
    for event in events[1:-1]:
        kind = event.WhichOneof("event")
        choice = getattr(event, kind).choice_index
        assert 0 <= choice < num_choices
        assert choice not in ended, f"choice {choice} goes on after its end"
        if kind == "choice_finished":
            assert event.choice_finished.finish_reason, "a reason is always set"
            ended.add(choice)
    assert ended == set(range(num_choices)), "every choice ends once"


def tokens_by_choice(events: Sequence[Any]) -> dict[int, list[int]]:
    """Ids of each choice, in order."""
    tokens: dict[int, list[int]] = {}
    for event in events:
        if event.WhichOneof("event") == "delta":
            tokens.setdefault(event.delta.choice_index, []).extend(event.delta.token_ids)
    return tokens


def check_positions(events: Sequence[Any], first_position: int = 0) -> None:
    """Assert that a worker's deltas have no gap and no repeat: each begins where the last of its choice ended."""
    next_position: dict[int, int] = {}
    for event in events:
        if event.WhichOneof("event") == "delta":
            delta = event.delta
            assert delta.first_position == next_position.get(delta.choice_index, first_position)
            assert delta.token_ids, "a delta has tokens"
            next_position[delta.choice_index] = delta.first_position + len(delta.token_ids)
