"""Parameters under the names that an API has for them: what lies behind a door knows one set of names.

Knows nothing about which API it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from serin_mesh.errors import MeshError


@contextmanager
def names_as(names: Mapping[str, str]) -> Iterator[None]:
    """A block whose errors name parameters as its API does: from a name used here to the API's own."""
    try:
        yield
    except MeshError as error:
        given = error.metadata.get("parameter", "")
        if given not in names:
            raise
        why = error.message.replace(given, names[given], 1)
        raise MeshError(error.reason, why, **{**error.metadata, "parameter": names[given]}) from error
