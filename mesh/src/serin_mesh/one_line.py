"""One printable line: text that a terminal, a table or a log shows as it stands, where it stands.

Of everything that Unicode calls "other" or "separator" it holds the space alone: no control characters, which command
terminals, no ends of lines, which forge rows, no marks of direction, which turn around what stands beside them. Knows
nothing about who writes such text or shows it.
"""

ONE_LINE = "text that can be printed on one line"
"""What is accepted, for people."""


def is_one_line(text: str) -> bool:
    """Whether it can be shown as it stands."""
    return text.isprintable()


def escaped(text: str) -> str:
    """The text with every character that is none of one printable line written out as in Python's strings."""
    if is_one_line(text):
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
