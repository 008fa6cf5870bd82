"""Bounds and constants of numbers, as the matcher keeps them.

The matcher reads a decimal of more than 15 digits as a double beside the right one, and an exclusive bound on the side
of 0 as an inclusive one, where both bounds have the same integer before the point. So bounds get at most 15 digits (or
are integers that doubles hold), and those on the side of 0 become inclusive. They move inwards only: what is accepted
is never outside of what the caller wrote. A number is the decimal that is written. Knows nothing about other keywords.
"""

from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from typing import Any

LARGEST = 2**53
"""Integers up to here have doubles of their own."""
_NUM_DIGITS = 15
"""Decimals of so many digits do, too; of bounds at most so many stand behind the point."""
_MAX_CONSTANT_EXPONENT = 22
"""Powers of ten up to here are doubles, so the matcher reads what is divided by one exactly."""
_LOWER = ("minimum", "exclusiveMinimum")
_UPPER = ("maximum", "exclusiveMaximum")


def keep_bounds(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Replace a schema's bounds by inclusive ones that are kept; tell those that cannot be, which are left out."""
    for keywords, sign in ((_LOWER, 1), (_UPPER, -1)):
        inclusive, exclusive = keywords
        if schema.get(exclusive) is True and is_number(schema.get(inclusive)):  # as draft 4 writes it
            schema[exclusive] = schema.pop(inclusive)
        given = [keyword for keyword in keywords if is_number(schema.get(keyword))]
        bounds = {one: _inwards(sign * _decimal(schema.pop(one)), is_exclusive=one == exclusive) for one in given}
        kept = [(bound, is_excluded) for bound, is_excluded in bounds.values() if bound is not None]
        if kept:
            bound, is_excluded = max(kept)
            tightest = sign * bound
            schema[exclusive if is_excluded else inclusive] = (
                int(tightest) if tightest == int(tightest) else float(tightest)
            )
        yield from (
            (one, f"beyond {LARGEST}, which cannot be enforced") for one, (bound, _) in bounds.items() if bound is None
        )


def is_kept(constant: Any) -> bool:
    """Whether the matcher keeps a constant as it is."""
    if isinstance(constant, list):
        return all(map(is_kept, constant))
    if isinstance(constant, dict):
        return all(map(is_kept, constant.values()))
    if not is_number(constant):
        return True
    exact = _decimal(constant)
    if not exact.is_finite() or abs(exact) > LARGEST:
        return False
    _, digits, exponent = exact.as_tuple()
    is_short = len(digits) <= _NUM_DIGITS and isinstance(exponent, int) and exponent >= -_MAX_CONSTANT_EXPONENT
    return is_short or exact == int(exact)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _inwards(bound: Decimal, *, is_exclusive: bool) -> tuple[Decimal | None, bool]:
    """The least number at or above a lower bound that the matcher keeps, and whether it is excluded; None: none is.

    One below 0 stays exclusive: of inclusive ones with many digits the matcher does not take what has fewer.
    """
    if bound > LARGEST or (is_exclusive and bound == LARGEST):
        return None, False
    if bound < -LARGEST:
        return Decimal(-LARGEST), False
    before_point = max(0, bound.adjusted() + 1)
    step = Decimal(1).scaleb(-max(0, _NUM_DIGITS - before_point))
    kept = bound.quantize(step, ROUND_CEILING)
    if is_exclusive and kept == bound and (bound >= 0 or before_point >= _NUM_DIGITS):
        return kept + step, False
    return kept, is_exclusive and kept == bound


def _decimal(number: float) -> Decimal:
    """The number as its caller wrote it: doubles are the shortest decimal that gives them."""
    return Decimal(repr(number))
