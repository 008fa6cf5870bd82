"""Models as the Anthropic API lists them, page by page. Knows nothing about what a name leads to."""

from collections.abc import Mapping, Sequence
from typing import Any

from serin_gateway.ask import refuse

DEFAULT_LIMIT, MAX_LIMIT = 20, 1000
LIFECYCLES = ("active", "deprecated", "retired")
BETA: Mapping[str, str] = {"beta": "Accepted; the answer is the same."}
"""What Anthropic's SDK adds where it calls an endpoint as one of its beta API."""
QUERY: Mapping[str, str] = {
    "limit": f"Models of a page, 1 to {MAX_LIMIT}; default: {DEFAULT_LIMIT}.",
    "after_id": "Name behind which the page begins.",
    "before_id": "Name before which the page ends.",
    "lifecycle": f"Of {', '.join(LIFECYCLES)}; all models here are active.",
    **BETA,
}
LISTS = ("lifecycle",)
"""Those that may come several times."""
_NOBODY_KNOWS = "1970-01-01T00:00:00Z"
"""What the API has where a model's date is not known."""


def model_body(name: str, context_length: int) -> dict[str, Any]:
    """A model, by the name under which it may be asked for."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _NOBODY_KNOWS,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "capabilities": None,
        "max_input_tokens": context_length,
        "max_tokens": context_length,
    }


def model_page(query: Mapping[str, Sequence[str]], models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The page of a list that a client's query asks for.

    Args:
        query: all values of each of :data:`QUERY`.
        models: all of them, ordered by `id`; a page's ends need not be among them any more.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name.
    """
    limit = _limit(query.get("limit", (str(DEFAULT_LIMIT),))[-1])
    if "active" not in _lifecycles(query.get("lifecycle", LIFECYCLES)):
        models = ()
    if "before_id" in query:
        if "after_id" in query:
            raise refuse("before_id", "together with after_id; accepted: one of them")
        found = [model for model in models if model["id"] < query["before_id"][-1]]
        shown = found[-limit:]
    else:
        found = [model for model in models if model["id"] > query.get("after_id", ("",))[-1]]
        shown = found[:limit]
    return {
        "data": shown,
        "has_more": len(shown) < len(found),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise refuse("limit", f"{text[:32]!r} is not accepted; accepted: 1 to {MAX_LIMIT}")
    return int(text)


def _lifecycles(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in LIFECYCLES:
            raise refuse("lifecycle", f"{name[:32]!r} is not accepted; accepted: {', '.join(LIFECYCLES)}")
    return names
