"""The key that `serin env` hands out: made when a mesh starts on a state directory for the first time.

Knows the gateway's key store and one file, nothing about processes.
"""

from serin_gateway.keys import KeyStore, KeyStoreDown, Role, key_digest, key_secret, mint_key

from serin_cli.errors import StartRefused
from serin_cli.state_dir import StateDir, write_private

DEFAULT_NAME = "default"


async def ensure_default_key(state: StateDir, store: KeyStore, now: float) -> None:
    """Keep the stored key if the mesh still knows it, else make one.

    Raises:
        StartRefused: the state Redis does not answer.
    """
    secret = key_secret(state.mesh_secret.read_bytes().strip())
    try:
        if state.default_key.exists():
            stored = state.default_key.read_text(encoding="utf-8").strip()
            known = await store.lookup(key_digest(secret, stored))
            if known is not None and known.is_valid(now):
                return
        key, record = mint_key(secret, role=Role.APP, name=DEFAULT_NAME)
        await store.create(record)
    except KeyStoreDown as error:
        raise StartRefused(f"no default key could be made: {error}") from error
    write_private(state.default_key, key + "\n")
