"""Flags that name limits, and limits in a few words. Knows nothing about whose they are."""

import argparse

from serin_gateway.ledger.usage import decimal
from serin_gateway.limits.limiter import NANO_PER_MICRO, Limits

from serin_cli.arguments import integer

_FLAGS = {
    "requests_per_minute": ("requests per minute", 2**32 - 1),
    "tokens_per_minute": ("tokens per minute", 2**32 - 1),
    "concurrent_requests": ("concurrent requests", 2**32 - 1),
    "tokens_per_day": ("tokens per day", 2**53 - 1),
    "money_per_month": ("money per month, in micro-units of the currency (5000000 is 5)", 10**12),
}


def add_limits(parser: argparse.ArgumentParser, whose: str, note: str = "") -> None:
    """Add a flag for each limit; the first one's help ends with a note."""
    for name, (words, most) in _FLAGS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=integer(0, most), metavar="N", help=f"{whose} limit of {words}; 0: none{note}")
        note = ""


def limits_from(arguments: argparse.Namespace) -> Limits | None:
    """What the flags say; None: none was given."""
    given = {name: value for name in _FLAGS if (value := getattr(arguments, name)) is not None}
    return Limits(**given) if given else None


def shown(limits: Limits) -> str:
    """Limits in a few words."""
    parts = [
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent_requests, "at once"),
        (limits.tokens_per_day, "tokens/day"),
    ]
    words = [f"{value} {unit}" for value, unit in parts if value]
    if limits.money_per_month:
        money = decimal(limits.money_per_month * NANO_PER_MICRO).rstrip("0").rstrip(".")
        words.append(f"{money} money/month")
    return ", ".join(words) or "none"
