"""A model is compared with itself before it is served."""

import weakref
from dataclasses import replace

import pytest
import torch
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.config import EngineConfig
from serin_worker.errors import ModelRefused
from serin_worker.model import checkpoint, loading, verification
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.products import Product
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


EXPERTS = {"moe_intermediate_size": 48, "num_experts_per_tok": 2, "head_dim": 16}


def folder_of(path, model_type, dtype=torch.float32, seed=0, **changes):
    """A random model of another architecture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(model_type, **SHAPE | changes)
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(path)
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


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (
            {"num_experts": 16, "initializer_range": 0.1, "dtype": torch.bfloat16, "seed": 2},
            EngineConfig(num_blocks=16),
        ),
        ({"num_experts": 6, "dtype": torch.bfloat16}, EngineConfig(num_blocks=16, quantize="fp8")),
        ({"num_experts": 4}, EngineConfig(num_blocks=2, context_length=32)),
    ],
)
def test_rows_that_depend_on_their_batch_are_not_called_invariant(changes, config, tmp_path, caplog):
    """A mixture of experts multiplies as many rows as were routed: fast is served, invariant is refused by name.

    The first two pass a comparison of 40 tokens, and give a token of a longer prompt other bits beside other requests.
    """
    folder = folder_of(tmp_path, "qwen3_moe", **EXPERTS | changes)
    assert load_engine(folder, config)[1].numerics == "fast"
    assert "it is served as 'numerics: fast'" in caplog.text
    with pytest.raises(
        ModelRefused, match=r"torch's _?\w+ \[.*'numerics: invariant' cannot be .* use 'numerics: fast'"
    ):
        load_engine(folder, replace(config, numerics="invariant"))


@pytest.mark.parametrize(("row_multiple", "num_rows", "is_promised"), [(1, 5, True), (16, 32, True), (16, 5, False)])
def test_rows_that_nobody_pads_must_keep_bits_in_any_number(
    row_multiple, num_rows, is_promised, tiny_folder, monkeypatch
):
    """Experts that are packed layers: as many rows as were sent to each, whatever a step is padded to."""
    described = loading.describe(checkpoint.inspect(tiny_folder("llama")), "float32")
    model = CausalModel(loading.load(described, torch.device("cpu"), lambda _: None))
    product = Product("_linear_pointwise", ((num_rows, 64), (96, 64)), torch.float32, num_rows, is_packed=True)
    monkeypatch.setattr(model, "find_products", lambda: (32, [product]))
    check = verification.Verification(model, 16)
    if is_promised:
        assert check.check_products(row_multiple) == row_multiple
        return
    with pytest.raises(ModelRefused, match=r"torch's _linear_pointwise \[5, 64\] x \[96, 64\]"):
        check.check_products(row_multiple)


def test_layers_that_are_not_plain_are_proven(tmp_path):
    """GPT-2's are no `torch.nn.Linear`: torch multiplies by them, in as many rows as were found to keep bits here."""
    folder = folder_of(tmp_path, "gpt2", eos_token_id=None, bos_token_id=None)
    engine, about = load_engine(folder, EngineConfig(num_blocks=64))
    if about.numerics == "fast":
        pytest.skip("this processor's kernels do not keep bits, and that is said")
    requests = [
        GenerationRequest(
            str(length),
            [(at * length) % TINY_VOCABULARY for at in range(length)],
            Sampling(temperature=0.0, num_logprobs=0),
            Stopping(max_tokens=9),
        )
        for length in (90, 1, 37, 52)
    ]

    def logprobs(asked: list[GenerationRequest]) -> list[list[float]]:
        for request in asked:
            engine.add(request)
        outputs = run_dry(engine)
        return [
            [
                one.logprob
                for output in outputs[request.request_id]
                if isinstance(output, Delta)
                for one in output.logprobs
            ]
            for request in asked
        ]

    assert logprobs(requests) == [logprobs([request])[0] for request in requests]


@pytest.mark.parametrize(
    "changes", [{"block_size": 256, "num_blocks": 1}, {"context_length": 32, "num_blocks": 2}, {"num_blocks": 8}]
)
def test_what_is_compared_does_not_depend_on_the_cache(changes, tmp_path):
    """One bad number is found with the smallest cache that can be asked for, as with a large one."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE))
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[5, 3] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match=r"model\.layers\.1\.self_attn\.k_proj\.weight"):
        load_engine(str(tmp_path), EngineConfig(**changes))


def test_too_few_positions_to_compare_are_not_called_invariant(tmp_path, caplog):
    """A model of 16 positions: attention is compared, bits are not, and the log says so."""
    folder = folder_of(tmp_path, "llama", max_position_embeddings=16)
    assert load_engine(folder, EngineConfig(num_blocks=1))[1].numerics == "fast"
    assert "has 16 positions, and it takes 20" in caplog.text
    with pytest.raises(ModelRefused, match="has 16 positions"):
        load_engine(folder, EngineConfig(num_blocks=1, numerics="invariant"))


def test_pages_are_given_back_before_others_are_made(tiny_folder):
    """Those of the comparison, and those that serve: never both at once."""
    described = loading.describe(checkpoint.inspect(tiny_folder("llama")), "float32")
    model = CausalModel(loading.load(described, torch.device("cpu"), lambda _: None))
    pages: list[weakref.ref] = []

    class Watched(TorchPagedAttention):
        def allocate(self, *arguments):
            assert len(pages) < 2 or all(old() is None for old in pages[:2])
            cache = super().allocate(*arguments)
            pages.append(weakref.ref(cache.keys))
            return cache

    for num_blocks in (6, 1):
        model.bind(Watched(model.device), num_blocks, 16)
    assert [old() is None for old in pages] == [True, True, False, False]


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_another_expert_by_a_last_bit_refuses_no_model(quantize, tmp_path):
    """Two experts are as good as each other to a row now and then: the comparison lets both sides choose the same."""
    changes = {"num_experts": 8, "initializer_range": 1.0, "dtype": torch.bfloat16, "seed": 4}
    folder = folder_of(tmp_path, "qwen3_moe", **EXPERTS | changes)
    load_engine(folder, EngineConfig(num_blocks=16, quantize=quantize))


def test_a_model_in_8_bits_is_refused_with_how_to_tell_why(tmp_path):
    """Whoever asked for them reads which flag to try; here the architecture is to blame."""
    folder = folder_of(tmp_path, "diffllama")
    with pytest.raises(
        ModelRefused, match=r"with linear layers in int8 .* without them \(--quantize none\); where it is"
    ):
        load_engine(folder, EngineConfig(precision="float32", num_blocks=16, quantize="int8"))


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
