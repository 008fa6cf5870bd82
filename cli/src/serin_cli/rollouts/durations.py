"""Durations, shares and rates as people write them: ``24h``, ``5%``, ``2/s``."""

import argparse
import re

from serin_control.rollouts.spec import LONGEST_STEP_S

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|m|h|d)")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*(s|min|m|h|d)")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
DURATION_HINT = "a number above 0 and s, min, h or d, such as 24h; from 1s to 30d"
SHARE_HINT = "a share such as 5%"
LEAST_SHARE = 0.01
"""Percent: one of 10,000 sessions."""
RATE_HINT = "a number of new sessions above 0 in a time, such as 2/s or 100/h"


def duration(text: str) -> float:
    """Seconds of ``90s``, ``30min``, ``24h`` or ``2d``.

    Raises:
        ValueError: it is none, or less than a second, which whole seconds cannot say, or more than a step may take.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    if not 1 <= seconds <= LONGEST_STEP_S:
        raise ValueError(text)
    return seconds


def share(text: str) -> float:
    """Percent of ``5%``.

    Raises:
        ValueError: it is none.
    """
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1])


def rate(text: str) -> float:
    """A rate a second, of ``2/s``.

    Raises:
        ValueError: it is none.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) / _UNITS[match[2]]


def duration_flag(text: str) -> float:
    """As :func:`duration`, for a flag."""
    try:
        return duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: {DURATION_HINT}") from None


def split_flag(text: str) -> float:
    """As :func:`share`, for a flag that splits traffic in two: each part gets something."""
    try:
        found = share(text)
    except ValueError:
        found = 0.0
    if not LEAST_SHARE <= found <= 100 - LEAST_SHARE:
        accepted = f"{SHARE_HINT}, from {LEAST_SHARE:g}% to {100 - LEAST_SHARE:g}%"
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: {accepted}")
    return found


def shares_flag(text: str) -> list[float]:
    """Shares separated by commas, for a flag."""
    try:
        return [share(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: shares such as 1%,5%,25%,50%,100%") from None


def rate_flag(text: str) -> float:
    """As :func:`rate`, for a flag."""
    try:
        return rate(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: accepted: {RATE_HINT}") from None
