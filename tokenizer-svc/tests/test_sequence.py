"""A sequence taken over at any position goes on as if nothing had happened."""

import pytest
import tokenizer_folders as folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serin_tokenizer_svc.errors import InputRefused
from serin_tokenizer_svc.sequence import GrowingSequence
from serin_tokenizer_svc.stop_strings import StopFinder

LOOSE = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def open_sequence(vocabulary, stops, **options):
    """A sequence with stop strings, as the service opens it."""
    return GrowingSequence(vocabulary.stream(False), StopFinder(stops) if stops else None, **options)


def undisturbed(vocabulary, ids, stops, **options):
    """Text after each id, the final text and the stop."""
    sequence = open_sequence(vocabulary, stops, **options)
    texts = [sequence.append([token_id]) for token_id in ids]
    texts.append(sequence.close())
    return texts, sequence


@pytest.mark.parametrize("kind", sorted(folders.KINDS))
@LOOSE
@given(data=st.data())
def test_taking_over_at_every_position_equals_the_undisturbed_stream(kind, data, vocabularies):
    """Prior ids and delivered bytes are enough for another replica to send exactly the rest."""
    vocabulary = vocabularies[kind]
    ids = data.draw(st.lists(st.integers(0, vocabulary.size - 1), max_size=14))
    whole = vocabulary.decode(ids, False)[0]
    stops = []
    if whole and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        stops = [whole[at : at + data.draw(st.integers(1, 4))]]
    min_tokens = data.draw(st.integers(0, 3))
    texts, sequence = undisturbed(vocabulary, ids, stops, min_tokens=min_tokens)
    for at in range(len(ids) + 1):
        delivered = "".join(texts[:at])
        other = open_sequence(vocabulary, stops, min_tokens=min_tokens, delivered_bytes=len(delivered.encode()))
        rest = other.append(ids[:at]) + other.append(ids[at:]) + other.close()
        assert delivered + rest == "".join(texts)
        assert other.stop == sequence.stop
        assert other.delivered_bytes == sequence.delivered_bytes


def test_stop_names_the_token_that_completed_it(vocabularies):
    """Ids behind the completing one are overshoot: not counted, not shown."""
    vocabulary = vocabularies["characters"]
    (ids,) = vocabulary.encode(["The quick brown"], False)
    sequence = open_sequence(vocabulary, ["ick b"])
    assert sequence.append(ids) == "The qu"
    assert (sequence.stop.stop_string, sequence.stop.num_tokens) == ("ick b", 11)
    assert sequence.append(ids) == sequence.close() == ""
    assert sequence.num_tokens == 11


def test_stop_strings_are_not_looked_for_within_min_tokens(vocabularies):
    """A stop string inside the leading ids is ordinary text; the next one counts."""
    vocabulary = vocabularies["characters"]
    (ids,) = vocabulary.encode(["on and on and"], False)
    sequence = open_sequence(vocabulary, ["on"], min_tokens=2)
    assert sequence.append(ids) == "on and "


@pytest.mark.parametrize(("delivered", "said"), [(99, "less than the caller says"), (1, "inside a character")])
def test_byte_counts_that_cannot_be_are_refused(vocabularies, delivered, said):
    """A caller that has more text than there is, or half a character, is told so."""
    vocabulary = vocabularies["byte_level"]
    (ids,) = vocabulary.encode(["你"], False)
    sequence = open_sequence(vocabulary, [], delivered_bytes=delivered)
    with pytest.raises(InputRefused, match=said):
        (sequence.append(ids), sequence.close())
