"""The engine's bench beside others: what it counts, and what it makes of a peer's lines."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

MODULES = ("engine", "report", "roofline", "engine_peers")
pytestmark = pytest.mark.long  # it imports torch, which costs more than it tests
CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 3,
    "intermediate_size": 16,
    "vocab_size": 100,
}


@pytest.fixture(name="engine_peers", scope="module")
def _engine_peers() -> Iterator[ModuleType]:
    """The bench as it is when it runs as a script: its folder comes first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("engine_peers")
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(name="roofline", scope="module")
def _roofline(engine_peers):
    return engine_peers.roofline


@pytest.fixture
def shape(tmp_path, roofline):
    """Of a configuration that can be counted by hand."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return roofline.shape_of(tmp_path)


def test_what_a_model_reads_and_multiplies(shape):
    """Projections of queries, keys, values and outputs, and three of the feed-forward part, in each layer."""
    assert shape.weights == 2 * (8 * 12 + 2 * 8 * 6 + 12 * 8 + 3 * 8 * 16)
    assert shape.head == 800
    assert shape.kv_numbers == 2 * 2 * 2 * 3
    assert shape.attention == 2 * 2 * 4 * 3


def test_the_slower_of_two_bounds(shape, roofline):
    """Few rows wait for memory, many for products."""
    slow_memory, slow_products = roofline.Machine(1e3, 1e12), roofline.Machine(1e12, 1e3)
    read = (shape.weights + shape.head) * 2 + 4 * 10 * shape.kv_numbers * 2
    assert roofline.decode(slow_memory, shape, 4, 10, 2) == pytest.approx(4 / (read / 1e3))
    macs = 4 * (shape.weights + shape.head + 10 * shape.attention)
    assert roofline.decode(slow_products, shape, 4, 10, 2) == pytest.approx(4 / (macs / 1e3))
    assert roofline.prefill(slow_products, shape, 10, 2) == pytest.approx(
        10 / ((10 * (shape.weights + 5 * shape.attention) + shape.head) / 1e3)
    )


def test_a_turn_of_a_peer(engine_peers, capfd):
    """Lines that are rows are kept, others are not; a peer that fails ends the bench and is named."""
    side = engine_peers.Side()
    lines = 'print(\'loading\'); print(\'{"loaded_s": 1}\'); print(\'{"row": "decode_b1", "tok_s": 12.5}\')'
    for _ in range(2):
        side.run([sys.executable, "-c", lines])
    assert dict(side.rates) == {"decode_b1": [12.5, 12.5]}
    assert side.peak_mib > 0
    with pytest.raises(SystemExit, match="ended with 3"):
        side.run([sys.executable, "-c", "raise SystemExit(3)"])
    assert capfd.readouterr().out == ""


def test_every_row_has_its_bound(shape, roofline, engine_peers):
    """But for serving, whose lengths differ."""
    machine = roofline.Machine(1e6, 1e12)
    bounds = {row: engine_peers._bound(row, machine, shape, 2) for row in engine_peers.engine.ROWS}
    assert [row for row, bound in bounds.items() if bound is None] == ["serve_32"]
    assert bounds["decode_b32"] > bounds["decode_b4"] > bounds["decode_b1"]
