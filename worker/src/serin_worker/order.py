"""Who goes first: into a step, and out of the cache when blocks run out.

Knows nothing about blocks or budgets.
"""

from serin_worker.fairness import TokenCounter
from serin_worker.sequence import Sequence


def rank(sequence: Sequence, tenants: TokenCounter) -> tuple[int, bool, bool, float, int, int]:
    """Smaller is computed earlier.

    By priority; of a tenant that is owed a place; having been started; the tenant's share so far; then arrival.
    """
    group, tenant = sequence.group, sequence.group.request.tenant
    return (
        -group.request.priority,
        not tenants.is_owed(tenant),
        not group.is_started,
        tenants.served(tenant),
        group.arrival,
        sequence.choice_index,
    )


def seniority(sequence: Sequence) -> tuple[int, int, int]:
    """Smaller goes on longer when blocks run out."""
    return -sequence.group.request.priority, sequence.group.arrival, sequence.choice_index
