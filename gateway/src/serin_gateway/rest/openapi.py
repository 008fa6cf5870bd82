"""The OpenAPI document of the endpoints, and a page that shows it without fetching anything from elsewhere.

Knows nothing about how endpoints answer.
"""

import html
import itertools
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from serin_mesh.errors import MeshError, Reason

from serin_gateway.rest.endpoint import Endpoint

_WHY = {
    Reason.PARAMETER_INVALID: "the request cannot be understood or is refused by name",
    Reason.KEY_MISSING: "no key, or a wrong one",
    Reason.ROLE_INSUFFICIENT: "the key's role does not allow this",
    Reason.MODEL_NOT_FOUND: "no such model",
    Reason.NOT_FOUND: "nothing of this name",
    Reason.IDEMPOTENCY_CONFLICT: "the Idempotency-Key was used for another request",
    Reason.CONFIG_CONFLICT: "it is another organization's",
    Reason.BODY_TOO_LARGE: "too large",
    Reason.RATE_LIMITED: "a limit of the key, its project, its organization or the model",
    Reason.INTERNAL: "something went wrong here",
    Reason.NOT_IMPLEMENTED: "a service behind is too old for this",
    Reason.AUTH_UNAVAILABLE: "not now; see retry-after",
    Reason.NOT_READY: "not now; see retry-after",
    Reason.DEADLINE_EXCEEDED: "not finished in time",
}

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeat under the same key joins the running answer, or gets the one kept for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_ANTHROPIC_VERSION = {
    "name": "anthropic-version",
    "in": "header",
    "required": False,
    "description": "With it, whatever its value, the answer is the Anthropic API's.",
    "schema": {"type": "string", "pattern": "^[!-~]+$"},
}


def document(endpoints: Sequence[Endpoint], version: str) -> bytes:
    """The document as JSON."""
    bodies = {one.body for one in endpoints if one.body is not None}
    _, definitions = models_json_schema(
        [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    dialects = {dialect.name: dialect.schema for endpoint in endpoints for dialect in endpoint.dialects}
    schemas = {**definitions.get("$defs", {}), **dialects}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Serin",
                "version": version,
                "description": "The OpenAI and Anthropic APIs of a Serin mesh.",
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "sk-serin-…"}},
            },
            "security": [{"key": []}],
        },
        indent=2,
    ).encode()


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    shapes = [{"$ref": f"#/components/schemas/{dialect.name}"} for dialect in endpoint.dialects]
    error = {"application/json": {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}}
    if endpoint.is_open:
        error = _content(("application/json",))
    responses: dict[str, Any] = {}
    if endpoint.produces:
        responses["200"] = {"description": "as asked", "content": _content(endpoint.produces)}
    for status, why in sorted(_refusals(endpoint).items()):
        responses[str(status)] = {"description": "; ".join(dict.fromkeys(why)), "content": error}
    operation: dict[str, Any] = {
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "responses": responses,
    }
    if endpoint.is_open:
        operation["security"] = []
    if "{" in endpoint.path:
        name = endpoint.path.partition("{")[2].partition("}")[0]
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if endpoint.is_made_once:
        operation["parameters"] = [*operation.get("parameters", []), _IDEMPOTENCY_KEY]
    if endpoint.dialect_of_anthropic is not None:
        operation["parameters"] = [*operation.get("parameters", []), _ANTHROPIC_VERSION]
    if endpoint.query:
        operation["parameters"] = operation.get("parameters", []) + [
            {"name": name, "in": "query", "description": what, "schema": {"type": "string"}}
            for name, what in endpoint.query.items()
        ]
    if endpoint.body is not None:
        schema = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _refusals(endpoint: Endpoint) -> dict[int, list[str]]:
    """Statuses that it may refuse with, as its APIs write them, and why."""
    found: dict[int, list[str]] = {}
    for dialect, reason in itertools.product(endpoint.dialects, endpoint.reasons):
        found.setdefault(dialect.status(MeshError(reason, "")), []).append(_WHY[reason])
    return found


def _content(kinds: Sequence[str]) -> dict[str, Any]:
    return {
        kind: {"schema": {"type": "object"} if kind == "application/json" else {"type": "string"}} for kind in kinds
    }


def page(endpoints: Sequence[Endpoint]) -> bytes:
    """A page for people."""
    rows = "".join(_row(endpoint) for endpoint in endpoints)
    text = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Serin API</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}code{background:#eee;"
        "padding:0 .2em}summary{cursor:pointer;padding:.3rem 0}td{padding:.1rem .8rem .1rem 0}</style>"
        "<h1>Serin API</h1><p>Point an OpenAI SDK here: <code>base_url</code> ends in <code>/v1</code>, "
        "<code>api_key</code> is your key. Or an Anthropic SDK: its <code>base_url</code> ends in the port. "
        "The same as data: <a href=/openapi.json>openapi.json</a>.</p>"
        f"{rows}</html>"
    )
    return text.encode()


def _row(endpoint: Endpoint) -> str:
    needs = "open to everybody" if endpoint.is_open else f"needs a key with the role {endpoint.needs.value}"
    fields = _fields(endpoint.body) if endpoint.body else ""
    return (
        f"<details><summary><code>{endpoint.method} {html.escape(endpoint.path)}</code> "
        f"{html.escape(endpoint.summary)}</summary><p>{needs}</p>{fields}</details>"
    )


def _fields(body: type[BaseModel]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(field.description or '')}"
        for name, field in body.model_fields.items()
    )
    return f"<table>{rows}</table>"
