"""Tokens served to each tenant, as virtual time: the tenant that had least, by weight, is next.

After the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Knows nothing
about requests or queues.
"""


class TokenCounter:
    """Virtual tokens by tenant. A tenant that was idle starts level with the least served of the busy ones."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._num_requests: dict[str, int] = {}

    def is_busy(self, tenant: str) -> bool:
        """Whether a tenant has a request here."""
        return tenant in self._num_requests

    def enter(self, tenant: str) -> None:
        """A request of this tenant arrived."""
        if tenant not in self._num_requests:
            floor = min((self._served[busy] for busy in self._num_requests), default=0.0)
            self._served[tenant] = max(self._served.get(tenant, 0.0), floor)
            self._num_requests[tenant] = 0
        self._num_requests[tenant] += 1

    def leave(self, tenant: str) -> None:
        """A request of this tenant is over. Idle tenants that are owed nothing are forgotten."""
        self._num_requests[tenant] -= 1
        if self._num_requests[tenant] == 0:
            del self._num_requests[tenant]
            if not self._num_requests:
                self._served.clear()
            else:
                self._forget_settled()

    def charge(self, tenant: str, num_tokens: int, weight: float) -> None:
        """Note that so many tokens were computed for this tenant."""
        self._served[tenant] += num_tokens / weight

    def served(self, tenant: str) -> float:
        """Virtual tokens: comparable between tenants, of no meaning alone."""
        return self._served[tenant]

    def _forget_settled(self) -> None:
        floor = min(self._served[busy] for busy in self._num_requests)
        settled = [t for t, s in self._served.items() if t not in self._num_requests and s <= floor]
        for tenant in settled:
            del self._served[tenant]
