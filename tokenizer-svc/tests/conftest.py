"""Model folders, made once a run."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tokenizer_folders as folders
from serin_tokenizer_svc.folder import read_folder
from serin_tokenizer_svc.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model folder of each kind."""
    root = tmp_path_factory.mktemp("models")
    return {kind: folders.make(kind, root) for kind in folders.KINDS}


@pytest.fixture(scope="session")
def vocabularies(model_folders: dict[str, Path]) -> dict[str, Vocabulary]:
    """The vocabulary of each kind."""
    return {kind: Vocabulary(read_folder(folder)) for kind, folder in model_folders.items()}


@pytest.fixture(scope="session")
def oracles(model_folders: dict[str, Path]) -> dict[str, Any]:
    """What transformers makes of the same folders."""
    from transformers import AutoTokenizer

    return {kind: AutoTokenizer.from_pretrained(folder) for kind, folder in model_folders.items()}
