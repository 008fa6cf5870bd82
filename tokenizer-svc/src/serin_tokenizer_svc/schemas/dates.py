"""`format` of dates as patterns: months have the days that they have, February those of the year (RFC 3339, 5.7).

The matcher's own gives each February 29 days. A year is 0001 to 9999, which is what most readers of dates take.
"""

from typing import Any

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_PATTERNS = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}[Tt]{_TIME}$"}


def keep_dates(schema: dict[str, Any]) -> None:
    """Replace a schema's format by a pattern, where it is one of dates."""
    form = schema.get("format")
    pattern = _PATTERNS.get(form) if isinstance(form, str) else None
    if pattern is None:
        return
    del schema["format"]
    if "pattern" in schema:
        before = schema.get("allOf", [])
        schema["allOf"] = [*(before if isinstance(before, list) else ()), {"pattern": pattern}]
    else:
        schema["pattern"] = pattern
