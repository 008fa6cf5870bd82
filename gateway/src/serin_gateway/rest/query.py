"""Parameters of a query string, read once, before an endpoint sees its request. Knows nothing about what they mean."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal
from urllib.parse import parse_qsl

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse

MAX_FIELDS = 16
_MAX_NAME = 64


def read_query(
    text: bytes, known: Collection[str], lists: Collection[str] = (), unknown: Literal["refuse", "warn"] = "refuse"
) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """All values of each parameter, and the names of unknown ones that the key's owner wants to be warned of only.

    Args:
        text: the query string as it was sent, without its question mark.
        known: names that are accepted.
        lists: those that may come several times, and as ``name[]`` too.
        unknown: what happens to every other name.

    Raises:
        MeshError: PARAMETER_UNKNOWN, PARAMETER_INVALID, with the parameter's name.
    """
    given: dict[str, list[str]] = {}
    ignored: list[str] = []
    for name, value in _pairs(text):
        plain = name.removesuffix("[]")
        if plain not in (known if plain == name else lists):
            if unknown == "refuse":
                message = f"{name[:_MAX_NAME]!r} is no parameter of this query; accepted: {', '.join(known) or 'none'}"
                raise MeshError(Reason.PARAMETER_UNKNOWN, message, parameter=name[:_MAX_NAME])
            ignored.append(name or "query")
            continue
        if plain in given and plain not in lists:
            raise refuse(plain, "comes more than once; send it once")
        given.setdefault(plain, []).append(value)
    return given, ignored


def _pairs(text: bytes) -> Sequence[tuple[str, str]]:
    try:
        return parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        message = f"the query has more than {MAX_FIELDS} parameters"
        raise MeshError(Reason.PARAMETER_INVALID, message, parameter="query") from None
