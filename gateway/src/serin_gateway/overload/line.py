"""Who is next: by priority, and within a priority fairly between tenants.

Start-time fair queueing (Goyal, Vin and Cheng 1996): a ticket's tag is the virtual time at which its tenant would be
served if all tenants took turns, so whoever queues a hundred requests waits behind whoever queues one. Knows nothing
about time, tasks or models.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A place in the line.

    Attributes:
        weight: answers that are waited for, at least 1.
        holder: whatever its owner needs to find itself.
    """

    tenant: str
    priority: int
    weight: int
    holder: T
    tag: float = 0.0
    is_waiting: bool = True


@dataclass(slots=True)
class _Class(Generic[T]):
    """Tickets of one priority."""

    order: list[tuple[float, int, Ticket[T]]] = field(default_factory=list)
    tenants: dict[str, list[Ticket[T]]] = field(default_factory=dict)
    finish: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    num_tickets: int = 0
    weight: int = 0


class WaitingLine(Generic[T]):
    """Tickets in the order in which they are served.

    Args:
        max_tickets: of one priority.
    """

    def __init__(self, max_tickets: int) -> None:
        self._max_tickets = max_tickets
        self._classes: dict[int, _Class[T]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return sum(one.num_tickets for one in self._classes.values())

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Priorities, highest first, and how many tickets wait in each."""
        for priority in sorted(self._classes, reverse=True):
            yield priority, self._classes[priority].num_tickets

    def join(self, ticket: Ticket[T]) -> Ticket[T] | None:
        """Take a place; the ticket that must leave for it, perhaps this one, or None.

        When a priority is full, the tenant with most tickets in it loses its last one.
        """
        one = self._classes.setdefault(ticket.priority, _Class())
        shed = None
        if one.num_tickets >= self._max_tickets:
            tenant, tickets = max(one.tenants.items(), key=lambda item: len(item[1]), default=(ticket.tenant, []))
            if tenant == ticket.tenant or len(tickets) <= len(one.tenants.get(ticket.tenant, ())) + 1:
                ticket.is_waiting = False
                if not one.num_tickets:
                    del self._classes[ticket.priority]
                return ticket
            shed = tickets[-1]
            self.remove(shed)
            one = self._classes.setdefault(ticket.priority, one)
        ticket.tag = max(one.now, one.finish.get(ticket.tenant, 0.0))
        one.finish[ticket.tenant] = ticket.tag + ticket.weight
        one.tenants.setdefault(ticket.tenant, []).append(ticket)
        one.num_tickets += 1
        one.weight += ticket.weight
        heapq.heappush(one.order, (ticket.tag, next(self._numbers), ticket))
        return shed

    def first(self) -> Ticket[T] | None:
        """Who is next; it stays in the line."""
        for priority in sorted(self._classes, reverse=True):
            order = self._classes[priority].order
            while order and not order[0][2].is_waiting:
                heapq.heappop(order)
            if order:
                return order[0][2]
        return None

    def first_of(self, may_go: Callable[[str], bool]) -> Ticket[T] | None:
        """Who is next of those tenants that may go; it stays in the line."""
        for priority in sorted(self._classes, reverse=True):
            tenants = self._classes[priority].tenants
            found = [tickets[0] for tenant, tickets in tenants.items() if may_go(tenant)]
            if found:
                return min(found, key=lambda ticket: ticket.tag)
        return None

    def remove(self, ticket: Ticket[T], *, served: bool = False) -> None:
        """Leave the line, because it was served or gave up; a second time does nothing."""
        if not ticket.is_waiting:
            return
        ticket.is_waiting = False
        one = self._classes[ticket.priority]
        tickets = one.tenants[ticket.tenant]
        tickets.remove(ticket)
        one.num_tickets -= 1
        one.weight -= ticket.weight
        if served:
            one.now = max(one.now, ticket.tag)
            if len(one.finish) > 2 * len(one.tenants) + 64:  # who was served long ago is as good as new
                one.finish = {name: at for name, at in one.finish.items() if at > one.now or name in one.tenants}
        if not tickets:
            del one.tenants[ticket.tenant]
            if not served:
                one.finish.pop(ticket.tenant, None)
        if not one.num_tickets:
            del self._classes[ticket.priority]

    def weight_before(self, tenant: str, priority: int) -> int:
        """About how much is served before a new ticket: all of higher priority, and this tenant's turns of its own."""
        higher = sum(one.weight for level, one in self._classes.items() if level > priority)
        own = self._classes.get(priority)
        if own is None:
            return higher
        turns = len(own.tenants.get(tenant, ())) + 1
        num_others = len(own.tenants) - (tenant in own.tenants)
        return higher + min(own.weight, turns * num_others + turns - 1)
