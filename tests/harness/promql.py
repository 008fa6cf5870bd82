"""Which metrics a PromQL expression asks for. Knows as much of the language as our own rules and boards use."""

import re

_OPERATORS = {"and", "or", "unless", "bool"}
_NOISE = (
    r'"[^"]*"',  # label values
    r"\{[^}]*\}",  # matchers
    r"\[[^\]]*\]",  # ranges
    r"\boffset\s+\w+",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
)


def metrics_asked(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    named = set(re.findall(r'__name__="([^"]+)"', expression))
    for noise in _NOISE:
        expression = re.sub(noise, " ", expression)
    words = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()", expression)
    return named | (set(words) - _OPERATORS)
