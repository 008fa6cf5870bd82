"""The index finds who holds the longest prefix, as a plain comparison of prompts would."""

from hypothesis import given, settings
from hypothesis import strategies as st
from serin_cache_svc.asked import Prompt
from serin_cache_svc.prefix_index import MAX_HOLDERS, PrefixIndex, WorkerBlocks
from serin_mesh.identity import cache_namespace
from worker_twin import BLOCK, KV, SECRET, keys_of

IDS = st.lists(st.integers(0, 1), max_size=14)
NAMESPACE = cache_namespace(SECRET, cache_group="acme", kv=KV)


def common_blocks(a, b):
    """Positions of the blocks that two prompts begin with alike."""
    num_blocks = 0
    while (end := (num_blocks + 1) * BLOCK) <= min(len(a), len(b)) and a[:end] == b[:end]:
        num_blocks += 1
    return num_blocks * BLOCK


def find(index, ids, namespace=NAMESPACE, model="small", kv=KV, block=BLOCK):
    """Endpoints and positions."""
    return [(h.endpoint, h.num_tokens) for h in index.holders(model, kv, block, namespace, Prompt(tuple(ids)))]


@settings(max_examples=200)
@given(prompt=IDS, held=st.lists(st.lists(IDS, max_size=3), max_size=4))
def test_holders_equal_a_plain_comparison(prompt, held):
    """Every worker is found with the longest prefix among what it computed, longest first."""
    index = PrefixIndex()
    expected = {}
    for number, prompts in enumerate(held):
        keys = {key for ids in prompts for key in keys_of("acme", ids)}
        index.replace(f"w{number}", WorkerBlocks("small", KV, BLOCK, keys))
        expected[f"w{number}"] = max((common_blocks(prompt, ids) for ids in prompts), default=0)
    found = find(index, prompt)
    assert dict(found) == {endpoint: num for endpoint, num in expected.items() if num}
    assert [num for _, num in found] == sorted((num for _, num in found), reverse=True)


def test_only_what_fits_is_found():
    """Another model, KV digest, block size or namespace finds nothing."""
    index = PrefixIndex()
    ids = list(range(12))
    index.replace("w", WorkerBlocks("small", KV, BLOCK, set(keys_of("acme", ids))))
    assert find(index, ids) == [("w", 12)]
    assert find(index, ids, model="large") == []
    assert find(index, ids, kv="other") == []
    assert find(index, ids, block=2) == []
    assert find(index, ids, namespace=cache_namespace(SECRET, cache_group="rival", kv=KV)) == []
    assert find(index, ids, namespace=cache_namespace(SECRET, cache_group="acme", kv=KV, salt="x")) == []


def test_a_hole_ends_a_prefix():
    """A block behind a missing one is of no use."""
    index = PrefixIndex()
    keys = keys_of("acme", range(12))
    index.replace("w", WorkerBlocks("small", KV, BLOCK, set(keys)))
    index.remove("w", keys[1:2])
    assert find(index, range(12)) == [("w", BLOCK)]
    index.add("w", keys[1:2])
    assert find(index, range(12)) == [("w", 12)]
    index.forget("w")
    assert find(index, range(12)) == []
    assert (index.num_blocks, index.num_workers) == (0, 0)


def test_at_most_sixteen_are_named():
    """The longest ones."""
    index = PrefixIndex()
    for number in range(20):
        keys = keys_of("acme", range(BLOCK * (number + 1)))
        index.replace(f"w{number:02}", WorkerBlocks("small", KV, BLOCK, set(keys)))
    found = find(index, range(BLOCK * 20))
    assert len(found) == MAX_HOLDERS
    assert found[0] == ("w19", BLOCK * 20)
