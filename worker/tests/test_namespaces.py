"""Namespaces of cache groups."""

from serin_mesh.identity import cache_namespace
from serin_worker.namespaces import Namespaces

SECRET = b"s" * 32


def test_a_namespace_is_the_meshs():
    """Derived as every service with the secret derives it, so that the index of cache-svc meets it."""
    assert Namespaces(SECRET, "kv").of("a").root == cache_namespace(SECRET, cache_group="a", kv="kv")
    salted = Namespaces(SECRET, "kv").of("a", "salt")
    assert salted.root == cache_namespace(SECRET, cache_group="a", kv="kv", salt="salt")


def test_groups_salts_digests_and_secrets_are_kept_apart():
    """Nothing is shared across any of them; all salts of a group have one owner to purge by."""
    ones = [
        Namespaces(SECRET, "kv").of("a"),
        Namespaces(SECRET, "kv").of("b"),
        Namespaces(SECRET, "kv").of("a", "x"),
        Namespaces(SECRET, "other").of("a"),
        Namespaces(b"t" * 32, "kv").of("a"),
    ]
    assert len({one.root for one in ones}) == len(ones)
    assert ones[0].owner == ones[2].owner
    assert len({one.owner for one in ones}) == 4


def test_no_group_shares_nothing():
    """An empty group has no namespace, whatever the salt."""
    assert Namespaces(SECRET, "kv").of("", "x").root == b""
