"""Rotary frequencies that follow the longest sequence of a call are served where no other sequence can change them."""

import pytest
from serin_worker.config import BadConfig, EngineConfig
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import TINY_VOCABULARY, run_dry, tokens_of
from transformers import AutoConfig, AutoModelForCausalLM

ORIGINAL = 64
SHAPE = {
    "vocab_size": TINY_VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": ORIGINAL,
}
KINDS = {
    "longrope": (
        "phi3",
        {
            "max_position_embeddings": 4 * ORIGINAL,
            "original_max_position_embeddings": ORIGINAL,
            "rope_parameters": LONGROPE,
        },
    ),
    "dynamic": (
        "llama",
        {
            "max_position_embeddings": ORIGINAL,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        },
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a random model of each kind."""
    made = {}
    for kind, (model_type, changes) in KINDS.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        config = AutoConfig.for_model(model_type, **SHAPE, **changes)
        AutoModelForCausalLM.from_config(config).save_pretrained(made[kind])
    return made


def config(**changes) -> EngineConfig:
    """Room for two sequences."""
    return EngineConfig(precision="float32", num_blocks=32, **changes)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_long_sequence_changes_nothing_beside_it(kind, folders):
    """Up to the last position that is served, a short answer is the same alone and beside a long one."""
    engine, about = load_engine(str(folders[kind]), config())
    assert about.context_length == ORIGINAL

    def add(name: str, prompt: list[int]) -> None:
        engine.add(GenerationRequest(name, prompt, Sampling(temperature=0, num_logprobs=0), Stopping(max_tokens=24)))

    add("short", [1, 2, 3])
    alone = run_dry(engine)["short"]
    add("short", [1, 2, 3])
    add("long", [5] * (ORIGINAL - 20))
    together = run_dry(engine)
    assert len(tokens_of(together["long"])) == 20
    assert tokens_of(together["short"]) == tokens_of(alone)


def test_more_positions_than_are_served_are_refused(folders, caplog):
    """The refusal and the log say why there are fewer than config.json has."""
    why = r"accepted: 1 to 64, the positions that the model has \(its rotary positions \(longrope\) .* not to 256\)"
    with pytest.raises(BadConfig, match=why):
        load_engine(str(folders["longrope"]), config(context_length=ORIGINAL + 1))
    (said,) = [record.getMessage() for record in caplog.records if "longrope" in record.getMessage()]
    assert said.startswith(f"{folders['longrope']}: the context holds 64 tokens")
