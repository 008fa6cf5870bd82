"""Where the control plane keeps what must survive it: the configuration, the instances, the lanes in use.

Says what a store must do; :class:`MemoryStore` does it for tests and for meshes without Redis.
"""

from dataclasses import dataclass, field
from typing import Protocol

from serin_control.errors import ConfigConflict
from serin_control.instance import Instance
from serin_control.topology import Carried


@dataclass(frozen=True, slots=True)
class SavedConfig:
    """A configuration that was applied.

    Attributes:
        revision: grows by one with each; the first is 1.
        yaml: its text.
        seed: digest of the last file that was taken over at a start; the same file is not taken over twice.
    """

    revision: int
    yaml: str
    seed: str = ""


@dataclass(frozen=True, slots=True)
class SavedMesh:
    """What was running: instances, and lanes that carried traffic; and names of records that could not be read."""

    instances: tuple[Instance, ...] = ()
    carried: Carried = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


class StateStore(Protocol):
    """A durable store. Every method raises :class:`serin_control.errors.StoreDown` when it does not answer."""

    async def read_config(self) -> SavedConfig | None:
        """The configuration in force, or None before the first."""

    async def write_config(self, config: SavedConfig) -> None:
        """Replace the configuration of the revision before.

        Raises:
            ConfigConflict: the configuration in force is of another revision.
        """

    async def read_mesh(self) -> SavedMesh:
        """What was running."""

    async def write_mesh(self, mesh: SavedMesh) -> None:
        """Replace what was running, all of it or nothing."""


class MemoryStore:
    """A :class:`StateStore` that lasts as long as the process."""

    def __init__(self) -> None:
        self._config: SavedConfig | None = None
        self._mesh = SavedMesh()

    async def read_config(self) -> SavedConfig | None:
        """The configuration in force, or None before the first."""
        return self._config

    async def write_config(self, config: SavedConfig) -> None:
        """Replace the configuration of the revision before."""
        check_succession(self._config.revision if self._config else 0, config)
        self._config = config

    async def read_mesh(self) -> SavedMesh:
        """What was running."""
        return self._mesh

    async def write_mesh(self, mesh: SavedMesh) -> None:
        """Replace what was running."""
        self._mesh = SavedMesh(mesh.instances, {model: dict(lanes) for model, lanes in mesh.carried.items()})


def check_succession(in_force: int, config: SavedConfig) -> None:
    """Refuse a configuration that does not follow the one in force.

    Raises:
        ConfigConflict: naming both revisions.
    """
    if config.revision != in_force + 1:
        raise ConfigConflict(
            f"the configuration in force is revision {in_force}, not {config.revision - 1}: read it and apply again"
        )
