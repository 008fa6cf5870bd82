"""Sizes that numbers are brought up to. Knows nothing about what is counted."""


def power_of_two(number: int) -> int:
    """The smallest power of two that is no smaller; 1 for numbers below."""
    return 1 << max(0, number - 1).bit_length()
