"""Score equals transformers' log-probabilities."""

import random

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.outputs import Scored
from serin_worker.request import GenerationRequest, Sampling, ScoreRequest, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, run_dry


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_scores_equal_transformers_log_probabilities(kind, tiny_folder, reference):
    """Within 1e-4 in float32, in chunks, beside running generations, with and without prefix hits."""
    config = EngineConfig(precision="float32", num_blocks=64, max_num_batched_tokens=37, max_num_sequences=8)
    engine, _ = load_engine(str(tiny_folder(kind)), config)
    draw = random.Random(3)
    cases = [
        ([draw.randrange(TINY_VOCABULARY) for _ in range(n)], [draw.randrange(TINY_VOCABULARY) for _ in range(m)])
        for n, m in ((1, 1), (1, 40), (20, 3), (33, 60), (100, 100))
    ]
    engine.add(GenerationRequest("g", [1, 2], Sampling(temperature=0.0), Stopping(max_tokens=60)))
    for attempt in range(2):
        for number, (prompt, target) in enumerate(cases):
            engine.add(ScoreRequest(f"{attempt}-{number}", prompt, target, num_alternatives=3, namespace=b"n"))
        outputs = run_dry(engine)
        for number, (prompt, target) in enumerate(cases):
            with torch.inference_mode():
                logits = reference(kind)(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
            right = torch.log_softmax(logits, -1)
            (scored,) = outputs[f"{attempt}-{number}"]
            assert isinstance(scored, Scored)
            own = torch.tensor([entry.logprob for entry in scored.logprobs])
            assert (own - right.gather(1, torch.tensor(target)[:, None])[:, 0]).abs().max() < 1e-4
            best = [[token for token, _ in entry.alternatives] for entry in scored.logprobs]
            assert best == right.topk(3).indices.tolist()
            assert scored.num_cached_tokens == ((len(prompt) - 1) // 16 * 16 if attempt else 0)
    assert engine.pool.num_free == engine.pool.num_blocks
