"""docs/api.md says what the code does."""

from pathlib import Path

from serin_gateway.rest.reference import reference

WRITTEN = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_reference_is_current():
    """Made from the tables that decide; to renew it: `python -m serin_gateway.rest.reference > docs/api.md`."""
    assert WRITTEN.read_text(encoding="utf-8") == reference()


def test_every_parameter_says_what_it_is():
    """No row is empty."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if not row.split("|")[3].strip(" .")] == []
