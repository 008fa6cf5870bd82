"""Tokens served to each tenant, as virtual time: the tenant that had least, by weight, is next; and who holds how much.

After the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Knows nothing
about requests or queues.
"""

from collections import Counter


class TokenCounter:
    """Virtual tokens by tenant. A tenant that was idle starts level with the least served of the busy ones."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._num_requests: dict[str, int] = {}
        self._num_running: Counter[str] = Counter()
        self._floor: float | None = None
        """Least served of the busy ones, until somebody is charged, comes or goes."""

    @property
    def num_busy(self) -> int:
        """Tenants with requests."""
        return len(self._num_requests)

    def enter(self, tenant: str) -> None:
        """A request of this tenant arrived."""
        if tenant not in self._num_requests:
            floor = min((self._served[busy] for busy in self._num_requests), default=0.0)
            self._served[tenant] = max(self._served.get(tenant, 0.0), floor)
            self._num_requests[tenant] = 0
        self._num_requests[tenant] += 1
        self._floor = None

    def leave(self, tenant: str) -> None:
        """A request of this tenant is over. Idle tenants that are owed nothing are forgotten."""
        self._num_requests[tenant] -= 1
        self._floor = None
        if self._num_requests[tenant] == 0:
            del self._num_requests[tenant]
            if not self._num_requests:
                self._served.clear()
            else:
                self._forget_settled()

    def charge(self, tenant: str, num_tokens: int, weight: float) -> None:
        """Note that so many tokens were computed for this tenant."""
        self._served[tenant] += num_tokens / weight
        self._floor = None

    def served(self, tenant: str) -> float:
        """Virtual tokens: comparable between tenants, of no meaning alone."""
        return self._served[tenant]

    def begin(self, tenant: str) -> None:
        """One more sequence of this tenant runs."""
        self._num_running[tenant] += 1

    def cease(self, tenant: str) -> None:
        """One of them runs no longer."""
        self._num_running[tenant] -= 1
        if not self._num_running[tenant]:
            del self._num_running[tenant]

    def num_running(self, tenant: str) -> int:
        """Sequences of this tenant that hold a slot."""
        return self._num_running[tenant]

    def is_owed(self, tenant: str) -> bool:
        """Whether nothing of this tenant runs, though no busy one was served less."""
        if self._num_running[tenant]:
            return False
        if self._floor is None:
            self._floor = min(self._served[busy] for busy in self._num_requests)
        return self._served[tenant] <= self._floor

    def _forget_settled(self) -> None:
        floor = min(self._served[busy] for busy in self._num_requests)
        settled = [t for t, s in self._served.items() if t not in self._num_requests and s <= floor]
        for tenant in settled:
            del self._served[tenant]
