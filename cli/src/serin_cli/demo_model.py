"""The declaration that serves one model: the demo model, or a folder or hub id that a person named.

Knows nothing about running meshes.
"""

import json
import re
from pathlib import Path

from serin_worker.demo.paths import DemoModelMissing, model_folder

from serin_cli.errors import StartRefused
from serin_cli.models.reference import parse_reference

DEMO_MODEL = "small"
DEMO_VERSION = "v2"
_VERSION = re.compile(r"^v[0-9]+([._-].*)?$")


def demo_config(workers: int = 1) -> str:
    """A `serin.yaml` for the demo model. It computes in float32, so that its answers are the same every time.

    Raises:
        StartRefused: the model is not where it belongs.
    """
    try:
        folder = model_folder(DEMO_MODEL, DEMO_VERSION)
    except DemoModelMissing as error:
        raise StartRefused(f"{error}; or give --model PATH_OR_HUB_ID") from error
    return _declaration(DEMO_MODEL, DEMO_VERSION, str(folder), workers, numerics="invariant", precision="float32")


def model_config(model: str, workers: int = 1) -> str:
    """A `serin.yaml` for one model folder, pushed version or hub id, named after it."""
    reference = parse_reference(model)
    if reference is not None:
        return _declaration(reference.name, reference.version, model, workers)
    folder = Path(model).expanduser()
    path = str(folder.absolute()) if folder.exists() else model
    name, version = folder.absolute().name if folder.exists() else folder.name, "v1"
    if folder.exists() and _VERSION.match(name):
        name, version = folder.absolute().parent.name, name
    return _declaration(_model_name(name), version, path, workers)


def _declaration(name: str, version: str, path: str, workers: int, **engine: str) -> str:
    settings = "".join(f"    {key}: {value}\n" for key, value in engine.items())
    return (
        f"models:\n  {json.dumps(name)}:\n    workers: {workers}\n{settings}"
        f"    versions:\n      {json.dumps(version)}:\n        path: {json.dumps(path)}\n"
    )


def _model_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-")[:64] or "model"
