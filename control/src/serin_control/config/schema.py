"""The JSON Schema of `serin.yaml`, for editors and for whoever writes one.

``python -m serin_control.schema`` prints it; the committed copy is ``serin_control/schema/serin.schema.json``.
"""

from typing import Any

from serin_control.config.declaration import MeshConfig


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `serin.yaml`."""
    schema = MeshConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "serin.yaml"}
