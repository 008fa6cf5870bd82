"""Settles what gateways that died have left open: by what the workers have sent, exactly once.

A lease that nobody renews lapses; some gateway claims it and asks the model's workers what they sent under its name.
Where none of them knows of it any more, what the last renewal posted counts. Knows nothing about Redis or gRPC.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from serin_mesh.breaker import Unavailable

from serin_gateway.ledger.accounts import Account, Accounts
from serin_gateway.ledger.line import Line, Payer, total
from serin_gateway.limits.limiter import Amount, BillingLine, Lease
from serin_gateway.limits.shared import Lapsed

LOOK_EVERY_S = 5.0
MAX_TRIES = 10
"""Times that a lease is looked into, half a minute apart, while some worker does not answer."""


class LapsedLeases(Protocol):
    """Where lapsed leases are found, and settled."""

    async def claim(self) -> list[Lapsed]:
        """Some that nobody else looks into for a while."""

    async def reap(self, lease: Lease, known: Amount, lines: Sequence[BillingLine]) -> bool:
        """Settle one; False: somebody else was first."""


class Reaper:
    """Looks for lapsed leases; `keep_reaping` is a task of whoever owns it.

    Args:
        leases: where they are found.
        accounts: asks workers.
        on_reaped: told how many lines each of them left, and who counted.
    """

    def __init__(
        self, leases: LapsedLeases, accounts: Accounts, on_reaped: Callable[[int, str], None] = lambda *_: None
    ) -> None:
        self._leases = leases
        self._accounts = accounts
        self._on_reaped = on_reaped
        self._num_tries: dict[str, int] = {}

    async def keep_reaping(self) -> None:
        """Look now and then, for as long as this task lives."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.8, 1.2))
            with suppress(Unavailable):
                await self.reap()

    async def reap(self) -> int:
        """Settle what can be settled now; returns how many leases.

        Raises:
            Unavailable: the leases cannot be asked for.
        """
        return sum([await self._settle(lapsed) for lapsed in await self._leases.claim()])

    async def _settle(self, lapsed: Lapsed) -> bool:
        payer = Payer.from_json(lapsed.facts)
        models = payer.models or (payer.model,)
        heard = [await self._accounts.begun_with(model, lapsed.lease_id) for model in models]
        found = [(model, account) for model, (some, _) in zip(models, heard, strict=True) for account in some]
        is_complete = all(complete for _, complete in heard)
        tries = self._num_tries.pop(lapsed.lease_id, 0) + 1
        if (not is_complete or any(account.is_running for _, account in found)) and tries < MAX_TRIES:
            self._num_tries[lapsed.lease_id] = tries
            return False
        lines = [
            line
            for model in models
            for line in lines_of(replace(payer, model=model), [account for name, account in found if name == model])
        ]
        used = total(lines)
        if used.tokens < lapsed.used.tokens:  # workers that are gone knew of more
            used = lapsed.used
            lines = [_posted(payer, lapsed)]
        lease = Lease(lapsed.lease_id, payer.scopes(), used, used, lapsed.facts)
        is_ours = await self._leases.reap(lease, lapsed.used, [line.billed(is_repeatable=True) for line in lines])
        if is_ours:
            self._on_reaped(len(lines), lines[0].counted_by if lines else "worker")
        return is_ours


def lines_of(payer: Payer, accounts: Sequence[Account]) -> list[Line]:
    """A line for each attempt that something was sent for: of each choice what the furthest worker has sent."""
    by_name: dict[str, list[Account]] = {}
    for account in accounts:
        if account.token_counts:
            by_name.setdefault(account.name, []).append(account)
    lines = []
    for name, parts in sorted(by_name.items()):
        choices = {choice for part in parts for choice in part.token_counts}
        completion = sum(max(part.token_counts.get(choice, 0) for part in parts) for choice in choices)
        first = min(parts, key=lambda part: sum(part.token_counts.values()))
        lines.append(
            Line(
                name,
                payer,
                first.lane.version,
                first.lane.lane,
                first.prompt_tokens,
                first.cached_tokens,
                completion,
                first.lane.price,
                "worker",
            )
        )
    return lines


def _posted(payer: Payer, lapsed: Lapsed) -> Line:
    """The last renewal knew the sum of the request's tokens, and not of which kind they were."""
    account, tokens = f"{lapsed.lease_id}.0", lapsed.used.tokens
    return Line(account, payer, "", "", completion_tokens=tokens, counted_by="renewal", posted_nano=lapsed.used.nano)
