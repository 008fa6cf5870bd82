"""Presidio's recognisers of personal data: their patterns, their checksums and the words that they look for.

Presidio's package imports spaCy (97 MB, 4 s), which its pattern recognisers do not need. So its packages are made
empty here, and only the modules of the recognisers that were asked for are loaded in them. They look nothing up in a
network, load no model, and their logger, which quotes what it looked at, is silent. Decision 0007 has the figures.
"""

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from serin_gateway.guards.detector import DetectorFailed

PACKAGE = "presidio_analyzer"
_RECOGNIZERS = f"{PACKAGE}.predefined_recognizers"
_LIGHT = {
    "analysis_explanation": "AnalysisExplanation",
    "recognizer_result": "RecognizerResult",
    "entity_recognizer": "EntityRecognizer",
    "local_recognizer": "LocalRecognizer",
    "pattern": "Pattern",
    "pattern_recognizer": "PatternRecognizer",
}
_lock = threading.Lock()


class NotInstalled(DetectorFailed):
    """Presidio is not there."""


@dataclass(frozen=True, slots=True)
class RecognizerName:
    """Where a recogniser is: ``generic`` or a country's folder, its module and its class."""

    folder: str
    module: str
    name: str


def is_installed() -> bool:
    """Whether it can be loaded."""
    return PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None


def load(names: Sequence[RecognizerName]) -> list[Any]:
    """Recognisers; some tenths of a second the first time.

    Raises:
        NotInstalled: Presidio is not there.
    """
    if not is_installed():
        raise NotInstalled("presidio-analyzer is not installed here: pip install 'serin-gateway[pii]'")
    with _lock:
        _open_package()
        logging.getLogger("presidio-analyzer").disabled = True
        return [_recognizer(one) for one in names]


def _recognizer(one: RecognizerName) -> Any:
    folder = f"{_RECOGNIZERS}.{one.folder}"
    if one.folder != "generic":
        _hollow(f"{_RECOGNIZERS}.country_specific")
        folder = f"{_RECOGNIZERS}.country_specific.{one.folder}"
    _hollow(folder)
    return getattr(importlib.import_module(f"{folder}.{one.module}"), one.name)()


def _open_package() -> None:
    """Make the packages without what they would import, unless somebody has imported them already."""
    if PACKAGE in sys.modules:
        return
    package = _hollow(PACKAGE)
    engine = _hollow(f"{PACKAGE}.nlp_engine")
    engine.NlpArtifacts = object  # type: ignore[attr-defined]  # named in annotations only
    _hollow(_RECOGNIZERS)
    for module, name in _LIGHT.items():
        setattr(package, name, getattr(importlib.import_module(f"{PACKAGE}.{module}"), name))


def _hollow(name: str) -> ModuleType:
    """A package of this name that finds its modules, and whose own code has not run."""
    if name in sys.modules:
        return sys.modules[name]
    parent, _, last = name.rpartition(".")
    if parent:
        root = Path(sys.modules[parent].__path__[0]) / last
    else:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        root = Path(spec.submodule_search_locations[0])
    module = ModuleType(name)
    module.__path__ = [str(root)]
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)
    return module
