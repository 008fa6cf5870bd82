"""Days and months by the calendar, UTC. Knows nothing about limits."""

from datetime import UTC, datetime, timedelta


def day_of(moment: float) -> str:
    """``2026-11-25``, the day of a Unix time."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def month_of(moment: float) -> str:
    """``2026-11``, the month of a Unix time."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")


def until_next_day_s(moment: float) -> float:
    """Seconds to midnight."""
    now = datetime.fromtimestamp(moment, UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()


def until_next_month_s(moment: float) -> float:
    """Seconds to the first of the next month."""
    now = datetime.fromtimestamp(moment, UTC)
    first = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first - now).total_seconds()
