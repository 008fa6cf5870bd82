"""The configuration in force: taken from a file or the store, replaced as a whole or not at all.

A bad configuration is refused, the old one serves on, and an alarm stands until a good one is applied. Knows nothing
about instances or the wire.
"""

import hashlib
from dataclasses import dataclass

from serin_control.alarms import Alarms
from serin_control.config import ConfigInvalid, MeshConfig, diff, parse_config
from serin_control.errors import ConfigConflict, StoreDown
from serin_control.latest import Latest
from serin_control.store import SavedConfig, StateStore

REFUSED = "config/refused"
MISSING = "config/missing"


@dataclass(frozen=True, slots=True)
class Declaration:
    """A configuration in force."""

    saved: SavedConfig
    config: MeshConfig


@dataclass(frozen=True, slots=True)
class InitialFile:
    """The file that a start was given."""

    name: str
    text: str

    @property
    def seed(self) -> str:
        """Digest by which a file that was taken over before is known again."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


class Declared:
    """Holds the configuration in force. ``current`` is unset until there is one."""

    def __init__(self, store: StateStore, alarms: Alarms, initial: InitialFile | None = None) -> None:
        self.current: Latest[Declaration] = Latest()
        self._store = store
        self._alarms = alarms
        self._initial = initial
        self._settled = False

    async def start(self) -> None:
        """Find the configuration to begin with: the file if it changed since it was last taken over, else the store.

        Raises:
            ConfigInvalid: the file is wrong and nothing better is known.
        """
        try:
            await self._settle()
        except StoreDown:
            if self._initial is None:
                return
            config = parse_config(self._initial.text, self._initial.name)
            self._adopt(SavedConfig(1, self._initial.text, self._initial.seed), config)

    async def refresh(self) -> None:
        """Take over what another control plane applied; after a start without the store, make peace with it.

        Raises:
            StoreDown: the store does not answer.
        """
        if not self._settled:
            await self._settle()
            return
        saved = await self._store.read_config()
        now = self.current.value
        if saved is not None and (now is None or saved.revision > now.saved.revision):
            self._take_over(saved)

    async def apply(self, text: str, expected_revision: int = 0, source: str = "serin.yaml") -> list[str]:
        """Replace the configuration; returns what changed, a line each.

        Args:
            text: YAML.
            expected_revision: revision that it replaces; 0: whatever is in force.
            source: what to call the text in messages.

        Raises:
            ConfigInvalid: anything in it is wrong.
            ConfigConflict: another revision is in force.
            StoreDown: it could not be made durable, so it was not applied.
        """
        if not self._settled:
            await self._settle()
        now = self.current.value
        revision = now.saved.revision if now else 0
        if expected_revision not in (0, revision):
            raise ConfigConflict(f"revision {revision} is in force, not {expected_revision}: read it and apply again")
        try:
            config = parse_config(text, source)
        except ConfigInvalid as invalid:
            self._refuse(invalid)
            raise
        if now is not None and now.saved.yaml == text:
            self._alarms.clear(REFUSED)
            return []
        seed = now.saved.seed if now else ""
        saved = SavedConfig(revision + 1, text, seed)
        await self._store.write_config(saved)
        self._adopt(saved, config)
        return diff(now.config if now else None, config)

    async def _settle(self) -> None:
        saved = await self._store.read_config()
        file = self._initial
        if file is None or (saved is not None and saved.seed == file.seed):
            if saved is not None:
                self._take_over(saved)
            elif self.current.value is None:
                self._alarms.raise_(
                    MISSING, "nothing is declared: no --config-file and none applied: no model is served"
                )
        else:
            await self._take_file(file, saved)
        self._settled = True

    async def _take_file(self, file: InitialFile, saved: SavedConfig | None) -> None:
        try:
            config = parse_config(file.text, file.name)
        except ConfigInvalid as invalid:
            if saved is None:
                raise
            self._take_over(saved)
            self._refuse(invalid)
            return
        newer = SavedConfig((saved.revision if saved else 0) + 1, file.text, file.seed)
        try:
            await self._store.write_config(newer)
        except ConfigConflict:  # another control plane starts at this moment: it was first
            other = await self._store.read_config()
            if other is not None:
                self._take_over(other)
            return
        self._adopt(newer, config)

    def _take_over(self, saved: SavedConfig) -> None:
        try:
            config = parse_config(saved.yaml, f"stored revision {saved.revision}")
        except ConfigInvalid as invalid:
            self._refuse(invalid)
            return
        self._adopt(saved, config)

    def _adopt(self, saved: SavedConfig, config: MeshConfig) -> None:
        self._alarms.clear(REFUSED)
        self._alarms.clear(MISSING)
        self.current.set(Declaration(saved, config))

    def _refuse(self, invalid: ConfigInvalid) -> None:
        num_more = len(invalid.problems) - 1
        more = f" (and {num_more} more)" if num_more else ""
        self._alarms.raise_(REFUSED, f"configuration refused, the old one serves on: {invalid.problems[0]}{more}")
