"""Parameters of a query string. Knows nothing about what they mean."""

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse
from serin_gateway.rest.client import Client

MAX_FIELDS = 16


def read_query(client: Client, known: Collection[str], lists: Collection[str] = ()) -> Mapping[str, Sequence[str]]:
    """All values of each parameter.

    Args:
        client: whose request it is.
        known: names that are accepted.
        lists: those that may come several times, and as ``name[]`` too.

    Raises:
        MeshError: PARAMETER_UNKNOWN, PARAMETER_INVALID.
    """
    given: dict[str, list[str]] = {}
    for name, value in query_pairs(client):
        plain = name.removesuffix("[]")
        if plain not in (known if plain == name else lists):
            message = f"{name[:64]!r} is no parameter; accepted: {', '.join(known) or 'none'}"
            raise MeshError(Reason.PARAMETER_UNKNOWN, message, parameter=name[:64])
        if plain in given and plain not in lists:
            raise refuse(plain, "comes more than once; send it once")
        given.setdefault(plain, []).append(value)
    return given


def query_pairs(client: Client) -> Sequence[tuple[str, str]]:
    """Names and values, whether anybody knows them or not.

    Raises:
        MeshError: PARAMETER_INVALID, there are too many.
    """
    text = client.scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        message = f"the query has more than {MAX_FIELDS} parameters"
        raise MeshError(Reason.PARAMETER_INVALID, message, parameter="query") from None
