"""What the commands' flags accept beyond what argparse knows."""

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1; anything else is refused in argparse's one-line way, exit code 2."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
