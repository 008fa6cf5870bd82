"""Kept answers in the state Redis, shared by all gateways.

``serin:{org}:answer:<name>`` is a hash that says who makes the answer and of what, ``…:frames`` the list of what was
made, ``…:maker`` who makes it or died over it: whoever makes the answer anew supersedes that one's lease. Knows
nothing about requests; a slow or dead Redis becomes :class:`AnswersDown` within the budget.
"""

from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import Redis

from serin_gateway.idempotency.store import CLAIM_S, KEPT_S, AnswersDown, Claim, Found, State
from serin_gateway.redis_calls import in_time

T = TypeVar("T")


class RedisAnswers:
    """Answers in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._script = redis.register_script(files(__package__).joinpath("answers.lua").read_text())
        self._prefix = f"serin:{{{organization}}}:"
        self._timeout_s = timeout_s

    async def claim(self, name: str, fingerprint: str, owner: str) -> Claim:
        """Become the one who makes an answer, or hear who does."""
        state, first, who = await self._run(name, "claim", owner, CLAIM_S, fingerprint, int(KEPT_S * 1000))
        return Claim(State(state), first, who)

    async def renew(self, name: str, owner: str, frames: Sequence[bytes], at: int) -> bool:
        """Keep a claim, and what was made since."""
        state, _, _ = await self._run(name, "renew", owner, CLAIM_S, at, *frames)
        return state == State.RUNNING

    async def finish(self, name: str, owner: str, state: State, ttl_s: float = KEPT_S) -> None:
        """The answer is complete, or not kept."""
        await self._run(name, "finish", owner, ttl_s, state.value)

    async def read(self, name: str, at: int) -> Found:
        """Frames behind the first ``at``."""
        claim, frames, *_ = self._keys(name)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(claim, "state", "owner", "renewals")
            pipe.lrange(frames, at, -1)
            (state, owner, renewals), found = await self._answer(pipe.execute())
        if state is None:
            return Found(State.GONE)
        return Found(State(state.decode()), found, owner.decode(), int(renewals or 0))

    async def _run(self, name: str, verb: str, owner: str, lives_s: float, *rest: Any) -> tuple[str, str, str]:
        state, fingerprint, who = await self._answer(
            self._script(self._keys(name), [verb, owner, int(lives_s * 1000), *rest])
        )
        return state.decode(), fingerprint.decode(), who.decode()

    def _keys(self, name: str) -> list[str]:
        claim = f"{self._prefix}answer:{name}"
        return [claim, f"{claim}:frames", f"{claim}:maker", self._prefix]

    async def _answer(self, call: Awaitable[T]) -> T:
        return await in_time(call, self._timeout_s, AnswersDown)
