"""Stop strings are found wherever the text is cut, and nothing behind or inside them leaks."""

from hypothesis import given, settings
from hypothesis import strategies as st
from serin_tokenizer_svc.stop_strings import StopFinder

LETTERS = st.text("ab\n☃", max_size=30)
STOPS = st.lists(st.text("ab\n☃", min_size=1, max_size=5), min_size=1, max_size=4)


def first_match(text, stops):
    """The slow, obvious way: the match that is complete first; of two that end together, the longer."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return end - len(stop), end, stop
    return None


@settings(max_examples=400)
@given(text=LETTERS, stops=STOPS, include=st.booleans(), data=st.data())
def test_any_cut_finds_the_same_match(text, stops, include, data):
    """Text before the match and the match itself do not depend on how the text is cut."""
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    finder = StopFinder(stops, include)
    given_text, found = "", None
    for a, b in zip([0, *at], [*at, len(text)], strict=True):
        piece, found = finder.feed(text[a:b])
        given_text += piece
        if found is not None:
            break
    expected = first_match(text, stops)
    if expected is None:
        assert found is None
        assert given_text + finder.flush() == text
    else:
        start, end, stop = expected
        assert found == stop
        assert given_text == text[: end if include else start]


@settings(max_examples=200)
@given(text=LETTERS, stops=STOPS)
def test_only_beginnings_of_stop_strings_are_held_back(text, stops):
    """Whatever is held back begins a stop string; so text is as early as it can be."""
    finder = StopFinder(stops)
    given_text = ""
    for char in text:
        piece, found = finder.feed(char)
        if found is not None:
            return
        given_text += piece
    held = text[len(given_text) :]
    assert not held or any(stop.startswith(held) for stop in stops)
    assert not any(stop.startswith(text[at:]) for at in range(len(given_text)) for stop in stops if text[at:])
