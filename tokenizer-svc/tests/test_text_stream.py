"""Growing text equals decoding everything at once, however the ids are cut."""

import pytest
import tokenizer_folders as folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serin_tokenizer_svc.text_stream import MAX_HELD_TOKENS, PieceStream, WindowStream

KINDS = sorted(folders.KINDS)
LOOSE = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def cuts(draw, ids):
    """Cut a list of ids anywhere."""
    at = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    return [ids[a:b] for a, b in zip([0, *at], [*at, len(ids)], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@LOOSE
@given(data=st.data())
def test_any_cut_of_any_ids_equals_the_whole(kind, data, vocabularies):
    """Random ids, most of them no text at all: what comes out in pieces is what comes out at once."""
    vocabulary = vocabularies[kind]
    ids = data.draw(st.lists(st.integers(0, vocabulary.size + 2), max_size=40))
    keep = data.draw(st.booleans())
    stream = vocabulary.stream(keep)
    pieces = [stream.append(run) for run in cuts(data.draw, ids)]
    assert "".join(pieces) + stream.flush() == vocabulary.decode(ids, keep)[0]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@LOOSE
@given(text=st.text(max_size=60))
def test_unicode_comes_back_character_by_character(kind, text, vocabularies):
    """Any text survives encode and streamed decode, and no piece ends in half a character."""
    vocabulary = vocabularies[kind]
    (ids,) = vocabulary.encode([text], False)
    stream = vocabulary.stream(True)
    pieces = [stream.append([token_id]) for token_id in ids]
    pieces.append(stream.flush())
    whole = vocabulary.decode(ids, True)[0]
    assert "".join(pieces) == whole
    assert "\ufffd" in text or all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
def test_a_text_that_goes_on_keeps_its_first_space(kind, vocabularies):
    """Ids behind a text are what they are in the middle of it; at a beginning a space is taken off."""
    vocabulary = vocabularies[kind]
    (ids,) = vocabulary.encode(["fox fox"], False)
    pieces = [vocabulary.decode([token_id], False)[1] for token_id in ids]
    stream = vocabulary.stream(False, goes_on=True)
    assert (stream.append(ids) + stream.flush()).encode() == b"".join(pieces)
    begins = vocabulary.stream(False)
    assert begins.append(ids) + begins.flush() == "fox fox"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace", "characters"])
@LOOSE
@given(data=st.data())
def test_the_fast_way_equals_the_slow_one(kind, data, vocabularies):
    """Looking pieces up gives what the library's own decoder gives through a window, on texts that are UTF-8."""
    vocabulary = vocabularies[kind]
    (ids,) = vocabulary.encode([data.draw(st.sampled_from(folders.CORPUS)) + data.draw(st.text(max_size=9))], False)
    slow = WindowStream(
        lambda some: vocabulary._tokenizer.decode(some, skip_special_tokens=True),
        lambda token_id: vocabulary._is_visible(token_id, False),
    )
    fast = PieceStream(vocabulary.pieces, False)
    runs = cuts(data.draw, ids)
    assert "".join(map(fast.append, runs)) + fast.flush() == "".join(map(slow.append, runs)) + slow.flush()


def test_window_decoding_touches_few_tokens_at_a_time():
    """The window never grows with the text, not even for ids that never make a character."""
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return "\ufffd" * len(ids)

    stream = WindowStream(decode, lambda token_id: True)
    for token_id in range(1000):
        stream.append([token_id])
    assert max(seen) <= 2 * MAX_HELD_TOKENS
