"""One printable line: what it is, and how anything else is written out on one."""

import pytest
from serin_mesh.one_line import escaped, is_one_line


@pytest.mark.parametrize("text", ["", "laptop of Ann", "Zoë 東京 שלום", "a\\b [red]", "é"])
def test_text_as_people_write_it_is_one_line(text):
    """Of any script; it is shown as it stands."""
    assert is_one_line(text)
    assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_everything_else_is_written_out(text, shown):
    """Control characters, ends of lines, marks of direction, tags and halves of pairs."""
    assert not is_one_line(text)
    assert escaped(text) == shown
    assert is_one_line(shown)
