"""API keys: minted once, stored as keyed digests, looked up in constant time.

The command line uses this package too::

    store = RedisKeyStore(redis.asyncio.from_url(url))
    key, record = mint_key(key_secret(mesh_secret), role=Role.APP, name="laptop")
    await store.create(record)          # `key` is shown now and never again
"""

from serin_gateway.keys.records import KeyRecord, Role, key_digest, key_secret, mint_key
from serin_gateway.keys.redis_store import RedisKeyStore
from serin_gateway.keys.store import KeyNotFound, KeyStore, KeyStoreDown, MemoryKeyStore

__all__ = [
    "KeyNotFound",
    "KeyRecord",
    "KeyStore",
    "KeyStoreDown",
    "MemoryKeyStore",
    "RedisKeyStore",
    "Role",
    "key_digest",
    "key_secret",
    "mint_key",
]
