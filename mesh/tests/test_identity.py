"""Identities: two services that compute them agree, and different things never share one."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serin_mesh import identity
from serin_mesh.identity import MediaSpan, block_keys

SECRET = b"s" * 32
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


def test_known_digests() -> None:
    """The digests never change between versions: caches, lanes and stored state depend on them."""
    assert identity.digest_bytes() == hashlib.blake2b(digest_size=16).digest()
    assert identity.digest_bytes(b"a").hex() == hashlib.blake2b(b"\x01" + b"\0" * 7 + b"a", digest_size=16).hexdigest()
    assert identity.digest_json({"b": 1, "a": [2]}) == identity.digest_bytes(b'{"a":[2],"b":1}').hex()
    assert identity.lane_digest("small", {"worker": ("v1", "aa"), "tokenizer": ("v2", "bb")}) == LANE
    assert identity.cache_namespace(SECRET, cache_group="tenant", kv="kv").hex() == NAMESPACE
    assert [key.hex() for key in block_keys(bytes(16), range(10), 4)] == BLOCKS


LANE = "18628842ab87d1a36836d0fa9a866d65"
NAMESPACE = "7143f61cfb1907d444ab9d6a2547d8c3"
BLOCKS = ["55b84cf612e5948a1301517d823440d6", "9d93df7a62bd8b9dad62caf79207d5bc"]


def test_parts_cannot_be_shifted() -> None:
    """Moving bytes from one part to the next gives another digest."""
    assert identity.digest_bytes(b"ab", b"c") != identity.digest_bytes(b"a", b"bc")


def test_lane_does_not_depend_on_the_order_of_members() -> None:
    """A lane is a set."""
    one = identity.lane_digest("m", {"worker": ("v1", "a"), "tokenizer": ("v1", "b")})
    assert one == identity.lane_digest("m", {"tokenizer": ("v1", "b"), "worker": ("v1", "a")})


@pytest.mark.parametrize(
    "change",
    [{"weights": "x"}, {"precision": "x"}, {"layout": "x"}, {"engine_epoch": "x"}, {"adapter": "x"}],
    ids=lambda change: next(iter(change)),
)
def test_kv_digest_depends_on_every_part(change: dict[str, str]) -> None:
    """Whatever may change computed KV changes the digest."""
    base = {"weights": "w", "precision": "float32", "layout": "l", "engine_epoch": "e", "adapter": ""}
    assert identity.kv_digest(**base) != identity.kv_digest(**(base | change))


def test_namespaces_differ_by_secret_group_kv_and_salt() -> None:
    """No two tenants, builds or salts meet, and nobody without the secret can compute where one is."""
    found = {
        identity.cache_namespace(secret, cache_group=group, kv=kv, salt=salt)
        for secret in (SECRET, b"t" * 32)
        for group in ("a", "b")
        for kv in ("k", "l")
        for salt in ("", "s")
    }
    assert len(found) == 16


@given(IDS, st.integers(1, 8))
def test_block_keys_follow_the_slow_definition(ids: list[int], block_size: int) -> None:
    """A key for each full block, each the digest of its parent and its ids."""
    parent, expected = bytes(16), []
    while len(ids) >= block_size * (len(expected) + 1):
        start = block_size * len(expected)
        parent = identity.block_key(parent, ids[start : start + block_size])
        expected.append(parent)
    assert list(block_keys(bytes(16), ids, block_size)) == expected


@given(IDS, IDS, st.integers(1, 8))
def test_prompts_share_exactly_their_common_blocks(one: list[int], other: list[int], block_size: int) -> None:
    """Keys agree up to the first block that differs, and nowhere after it."""
    first, second = (list(block_keys(bytes(16), ids, block_size)) for ids in (one, other))
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        end = block_size * (index + 1)
        assert (a == b) == (one[:end] == other[:end])


def test_the_namespace_is_the_root() -> None:
    """Equal prompts in two namespaces share no key."""
    keys = [set(block_keys(root, range(64), 16)) for root in (b"a" * 16, b"b" * 16)]
    assert not keys[0] & keys[1]


def test_images_are_told_apart_by_content_and_place() -> None:
    """The same placeholder ids with another image, kind, place or length are another prompt."""
    cat, dog = (MediaSpan(identity.digest_bytes(name), "image", 2) for name in (b"cat", b"dog"))
    prompts = [
        [],
        [(0, cat)],
        [(0, dog)],
        [(1, cat)],
        [(0, MediaSpan(cat.digest, "audio", 2))],
        [(0, MediaSpan(cat.digest, "image", 3))],
        [(0, cat), (2, cat)],
    ]
    keys = [tuple(block_keys(bytes(16), [7] * 4, 4, media)) for media in prompts]
    assert len(set(keys)) == len(prompts)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_placeholder_ids_have_no_effect(one: int, other: int) -> None:
    """Whatever ids stand where an image is, the keys are the same."""
    cat = MediaSpan(identity.digest_bytes(b"cat"), "image", 3)
    keys = [list(block_keys(bytes(16), [1, x, x, x, 2, 3], 2, [(1, cat)])) for x in (one, other)]
    assert keys[0] == keys[1]


def test_an_image_over_several_blocks_marks_each() -> None:
    """Every block that an image overlaps depends on it, blocks before it do not."""
    plain = list(block_keys(bytes(16), [0] * 8, 2))
    marked = list(block_keys(bytes(16), [0] * 8, 2, [(3, MediaSpan(b"c" * 16, "image", 3))]))
    assert [a == b for a, b in zip(plain, marked, strict=True)] == [True, False, False, False]


def write_tokenizer(folder, **changes) -> None:
    """A small tokenizer with changes."""
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "added_tokens": [{"id": 2, "content": "<end>", "special": True}],
        "decoder": {"type": "ByteLevel"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | changes))


def test_vocabulary_is_what_ids_mean(tmp_path) -> None:
    """Another id, added token or decoder is another vocabulary; merges and normalisers are not part of it."""
    write_tokenizer(tmp_path)
    same = identity.vocabulary_digest(tmp_path)
    write_tokenizer(tmp_path, model={"type": "BPE", "vocab": {"b": 1, "a": 0}, "merges": ["a b"]}, normalizer={"x": 1})
    assert identity.vocabulary_digest(tmp_path) == same
    for change in (
        {"model": {"vocab": {"a": 1, "b": 0}}},
        {"added_tokens": []},
        {"added_tokens": [{"id": 2, "content": "<end>", "special": False}]},
        {"decoder": {"type": "Metaspace"}},
    ):
        write_tokenizer(tmp_path, **change)
        assert identity.vocabulary_digest(tmp_path) != same


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", '{"model": 3}', '{"model": {"vocab": {}}, "added_tokens": [3]}', "[" * 100_000]
)
def test_a_bad_tokenizer_is_refused_by_name(tmp_path, content: str | None) -> None:
    """The error names the file."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(identity.ArtifactUnreadable, match=r"tokenizer\.json"):
        identity.vocabulary_digest(tmp_path)
