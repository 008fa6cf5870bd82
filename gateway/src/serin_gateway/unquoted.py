"""What is kept of a refusal's sentence: why, but none of the words that its caller wrote.

The caller is told which value was wrong; a record that is kept for a day is read by others.
Knows nothing about records.
"""

import re

from serin_mesh.errors import MeshError, Reason

_QUOTED = re.compile(r"""(?<!\w)'(?:\\.|[^'\\])*(?:'|$)|(?<!\w)"(?:\\.|[^"\\])*(?:"|$)""")
_OWN_WORDS = (Reason.GRAMMAR_INVALID, Reason.GRAMMAR_LIMIT, Reason.TEMPLATE_REJECTED, Reason.PARAMETER_UNKNOWN)
"""These say in their caller's words what is wrong with them."""


def unquoted(error: MeshError) -> str:
    """The sentence of an error, with ``'…'`` where it quotes somebody."""
    if error.reason is Reason.PARAMETER_UNKNOWN:
        return "a parameter is not known here"
    if error.reason in _OWN_WORDS:
        return f"{error.metadata.get('parameter', 'the request')} was refused, in its caller's own words"
    return _QUOTED.sub("'…'", error.message)
