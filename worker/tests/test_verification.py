"""A model is compared with itself before it is served."""

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.errors import ModelRefused
from serin_worker.model import verification
from serin_worker.outputs import Delta
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, run_dry
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 50
SHAPE = {
    "vocab_size": TINY_VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}


def folder_of(path, model_type, **changes):
    """A random model of another architecture."""
    AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SHAPE, **changes)).save_pretrained(path)
    return str(path)


def test_logits_differ_by_their_norms():
    """As all rows at once would say it, one wrong row among right ones as well; what is no number never passes."""
    right = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = right.clone()
    found[2] *= 1.5
    expected = float((found.double() - right.double()).norm() / right.double().norm())
    assert verification._difference(found, right) == pytest.approx(expected)
    for bad in (right * torch.nan, right * 0):
        assert not verification._difference(right, bad) <= 1


def test_attention_that_pages_do_not_compute_is_refused(tmp_path):
    """DiffLlama subtracts two attentions around the interface: other logits, so it is not served."""
    folder = folder_of(tmp_path, "diffllama")
    with pytest.raises(ModelRefused, match="something else through paged attention"):
        load_engine(folder, EngineConfig(precision="float32", num_blocks=16))


def test_rows_that_depend_on_their_batch_are_not_called_invariant(tmp_path):
    """A mixture of experts multiplies as many rows as were routed: fast is served, invariant is refused by name."""
    folder = folder_of(tmp_path, "mixtral", num_local_experts=4)
    load_engine(folder, EngineConfig(precision="float32", num_blocks=16))
    with pytest.raises(ModelRefused, match="use 'numerics: fast'"):
        load_engine(folder, EngineConfig(precision="float32", numerics="invariant", num_blocks=16))


def test_sinks_and_windows_pass(tmp_path):
    """gpt-oss: learned sinks, alternating windows, experts."""
    folder = folder_of(tmp_path, "gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=13, head_dim=16)
    load_engine(folder, EngineConfig(precision="float32", num_blocks=16))


@pytest.mark.parametrize(
    ("model_type", "seen"),
    [("phimoe", WINDOW), ("olmoe", None), ("mistral", WINDOW), ("qwen2", None)],
)
def test_a_window_is_that_of_the_masks(model_type, seen, tmp_path):
    """Longer than what the check compares: Phi-MoE has it in its masks alone, OLMoE hands it over and masks nothing.

    What is served is what transformers' own attention, which goes by masks, computes.
    """
    experts = {"num_local_experts": 4} if model_type == "phimoe" else {}
    folder = folder_of(tmp_path, model_type, sliding_window=WINDOW, eos_token_id=None, **experts)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    engine, _ = load_engine(folder, EngineConfig(precision="float32", num_blocks=16))
    assert engine.scheduler.limits.window == (seen or 0)
    prompt = [(7 * at) % TINY_VOCABULARY for at in range(2 * WINDOW)]
    engine.add(GenerationRequest("a", prompt, Sampling(temperature=0.0, num_logprobs=0), Stopping(max_tokens=2)))
    delta = next(output for output in run_dry(engine)["a"] if isinstance(output, Delta))
    with torch.inference_mode():
        own = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1].log_softmax(-1)
    assert delta.logprobs[0].logprob == pytest.approx(float(own.max()), abs=1e-4)


def test_code_that_does_not_run_with_our_layers_is_refused(tmp_path):
    """HunYuan's router looks at its layer's weight, which is packed: by type and error, not by a bare exception."""
    folder = folder_of(tmp_path, "hunyuan_v1_moe", num_experts=4, moe_topk=2, head_dim=16)
    with pytest.raises(ModelRefused) as caught:
        load_engine(folder, EngineConfig(precision="float32", num_blocks=16))
    said = str(caught.value)
    assert said.startswith("model_type 'hunyuan_v1_moe' (HunYuanMoEV1ForCausalLM) does not run here: AttributeError: '")
    assert "has no attribute 'weight'; supported: causal language models" in said
    assert "\n" not in said
