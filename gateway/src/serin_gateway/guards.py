"""The seam of input filters.

Knows nothing about what is filtered: a guard looks at an ask and lets it pass, changes it or refuses it.
"""

from typing import Protocol

from serin_gateway.ask import Ask
from serin_gateway.keys.authenticator import Caller


class Guard(Protocol):
    """One filter."""

    async def inspect(self, caller: Caller, ask: Ask) -> Ask:
        """The ask as it may go on.

        Raises:
            MeshError: it is refused.
        """
