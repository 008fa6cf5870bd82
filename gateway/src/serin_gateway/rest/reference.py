"""docs/api.md: what happens to each parameter, from the tables that decide it.

    python -m serin_gateway.rest.reference > docs/api.md

Knows nothing about how endpoints answer.
"""

import sys
from collections.abc import Iterator

from pydantic import BaseModel
from serin_mesh.readiness import Readiness

from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.endpoint import Endpoint

_HEAD = """\
# The REST API, parameter by parameter

Written by `python -m serin_gateway.rest.reference`; `GET /openapi.json` has the types, `GET /docs` shows them.

- **supported**: it does what its API says.
- **neutral**: accepted for the values named here, which have no effect on the answer; every other value is refused by
  name (`PARAMETER_UNSUPPORTED`).
- **refused**: accepted as `null` or left out; everything else is refused by name.

A parameter that is not listed, in the body or in the query, is refused by name (`PARAMETER_UNKNOWN`), the `api-version`
of Azure's clients too; to a key made with `--unknown warn` the header `x-serin-ignored` names it instead. So it is with
members inside of objects, which are named by their place (`messages[0].colour`). Administration (`/admin/…`) refuses
whatever it does not know. Nothing is ever silently ignored, except for a query of `/metrics`, `/docs`, `/openapi.json`,
`/live` and `/ready`. The same reasons come over gRPC, in `ErrorInfo`: a field that this version does not know is
refused, or named in the trailer `x-serin-ignored`, by its number (`sampling.99`). An `x-request-id` that is not 1 to
100 of `A-Za-z0-9._-` is replaced and named there too, whatever the key; an `x-session-id` of more than 256 bytes is
refused.
A body is JSON, whatever its `content-type` says of it; one that is packed (`content-encoding`) is refused.

Of the Responses API `/v1/responses/input_tokens` and `/v1/responses/compact` are not served (405); `/tokenize` counts.

What answers may be made to follow, and what that costs, is in [structured-output.md](structured-output.md); what a
model's name leads to, and the headers that say who answered, in [routing.md](routing.md).
"""

_MADE_ONCE = " The header `Idempotency-Key` makes [repeats](streams.md) join or get the first answer."


def reference() -> str:
    """The document."""
    endpoints = rest_endpoints(Readiness()).all
    described = [endpoint for endpoint in endpoints if endpoint.body or endpoint.query]
    return "\n".join([_HEAD, *(line for endpoint in described for line in _section(endpoint))])


def _section(endpoint: Endpoint) -> Iterator[str]:
    yield f"## {endpoint.method} {endpoint.path}"
    yield ""
    yield f"{endpoint.summary}." + (_MADE_ONCE if endpoint.is_made_once else "")
    yield ""
    yield "| parameter | what happens | what it is, or why |"
    yield "|---|---|---|"
    if endpoint.body is not None:
        yield from _supported(endpoint.body)
    for name, what in endpoint.query.items():
        yield f"| `{name}` | supported, in the query | {what} |"
    for name, neutral in sorted(endpoint.neutral.items()):
        kind = f"neutral: {neutral.accepted}" if neutral.accepted else "refused"
        yield f"| `{name}` | {kind} | {neutral.why} |"
    yield ""


def _supported(body: type[BaseModel]) -> Iterator[str]:
    for name, field in body.model_fields.items():
        needed = "Required. " if field.is_required() else ""
        yield f"| `{name}` | supported | {needed}{field.description or ''} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
