"""Whether this control plane leads: a lock in the store that lapses by itself, and a term that every write names.

Who leads believes so no longer than the lock can be trusted, by its own clock. Knows nothing about rollouts.
"""

import secrets
from collections.abc import Callable

from serin_control.errors import NotLeading
from serin_control.rollouts.store import Leader, RolloutStore

TTL_S = 2.5
"""A leader that is not heard for so long has lost the lead."""

MARGIN_S = 0.5
"""It stops believing in its lead so much earlier: clocks run at slightly different speeds."""

RENEW_S = 0.8
ASK_S = 0.25


class Leadership:
    """One control plane's view of who leads.

    Args:
        store: where the lock is.
        name: of this instance, unique in the mesh.
        address: ``host:port`` that others reach it by; empty: not known.
        clock: seconds, monotonic.
    """

    def __init__(self, store: RolloutStore, name: str, address: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._me = Leader(name, address, secrets.token_hex(8))
        self._clock = clock
        self._leader: Leader | None = None
        self._valid_until = float("-inf")
        self._next_at = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this one leads, as far as it can know."""
        return self._leader is not None and self._leader.boot == self._me.boot and self._clock() < self._valid_until

    @property
    def follows(self) -> bool:
        """Whether another one leads, as far as was heard last."""
        return self._leader is not None and self._leader.boot != self._me.boot

    def require(self) -> Leader:
        """This one's lead, to be named in a write.

        Raises:
            NotLeading: another one leads, or it is not known who does.
        """
        if self.leads:
            assert self._leader is not None
            return self._leader
        other = self._leader
        if other is None or not self.follows:
            raise NotLeading("no control plane leads at the moment: state Redis does not answer; try again soon")
        where = f" at {other.address}" if other.address else ""
        raise NotLeading(f"control plane {other.name}{where} leads: ask it", other.address)

    async def look(self) -> None:
        """Renew the lead or ask for it, when it is time.

        Raises:
            StoreDown: the store does not answer.
        """
        now = self._clock()
        if now < self._next_at:
            return
        self._leader = await self._store.lead(self._me, TTL_S)
        mine = self._leader.boot == self._me.boot
        self._valid_until = now + TTL_S - MARGIN_S if mine else float("-inf")
        self._next_at = now + (RENEW_S if mine else ASK_S)

    async def resign(self) -> None:
        """Give the lead up at once, so that another one need not wait.

        Raises:
            StoreDown: the store does not answer: the lead lapses by itself.
        """
        if self.leads:
            await self._store.resign(self._me)
        self.forget()

    def forget(self) -> None:
        """What was believed was wrong: ask again at once."""
        self._valid_until = self._next_at = float("-inf")
