"""Rollouts in state Redis (or Valkey), which :mod:`serin_control.redis_store` opens.

Keys, all with the hash tag of :mod:`serin_control.redis_store`, after ``serin:{control}:rollout:``

    leader      who leads, as JSON; lapses by itself
    term        counts leads; every write names its own
    revision    counts writes; every write names the one it was made from
    book        hash: ``rollout/MODEL``, ``standing/MODEL``, ``seals/MODEL`` and ``withdrawn/ID`` to JSON, ``frozen`` to
                the reason
    all         hash: id to a rollout's JSON, running or ended
    order       sorted set: ids by their number
    number      counts rollouts
    acts        stream: the history, append-only
    judges      hash: id to what a judge knows, as JSON, of rollouts that run
    golden      hash: id to a golden set, of rollouts that run
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from serin_control.errors import NotLeading, RolloutConflict, RolloutNotFound
from serin_control.redis_store import PREFIX, awaited, opened, translated
from serin_control.rollouts.act import Act
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.seals import Seals
from serin_control.rollouts.standing import Standing
from serin_control.rollouts.store import Book, Change, Leader, Page, changed
from serin_control.rollouts.withdrawal import Withdrawal, among

ROLLOUTS = PREFIX + "rollout:"
PAGE = 200

_LEAD = """
local held = redis.call('GET', KEYS[1])
local term
if held then
  local leader = cjson.decode(held)
  if leader['name'] ~= ARGV[1] then return held end
  if leader['boot'] == ARGV[3] then term = leader['term'] end
end
term = term or redis.call('INCR', KEYS[2])
local mine = cjson.encode({name = ARGV[1], address = ARGV[2], boot = ARGV[3], term = term})
redis.call('SET', KEYS[1], mine, 'PX', ARGV[4])
return mine
"""
"""Take the lead or keep it. A process that comes back under its old name takes over at once, in a term of its own."""

_RESIGN = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held)['boot'] == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

_WRITE = """
local held = redis.call('GET', KEYS[1])
if not held or cjson.decode(held)['term'] ~= tonumber(ARGV[1]) then return {'leader', held or ''} end
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[2] then return {'revision', ''} end
local change = cjson.decode(ARGV[3])
for _, field in ipairs(change['book_gone']) do redis.call('HDEL', KEYS[3], field) end
for field, text in pairs(change['book']) do redis.call('HSET', KEYS[3], field, text) end
for id, text in pairs(change['all']) do
  redis.call('HSET', KEYS[4], id, text)
  redis.call('ZADD', KEYS[5], 'NX', change['number'], id)
end
for id, text in pairs(change['golden']) do redis.call('HSET', KEYS[7], id, text) end
for _, act in ipairs(change['acts']) do redis.call('XADD', KEYS[6], '*', 'act', act) end
local running = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.sub(field, 1, 8) == 'rollout/' then
    local is_json, rollout = pcall(cjson.decode, redis.call('HGET', KEYS[3], field))
    if is_json and type(rollout) == 'table' and rollout['id'] then running[rollout['id']] = true end
  end
end
for _, key in ipairs({KEYS[7], KEYS[8]}) do
  for _, id in ipairs(redis.call('HKEYS', key)) do
    if not running[id] then redis.call('HDEL', key, id) end
  end
end
return {'ok', tostring(redis.call('INCR', KEYS[2]))}
"""
"""Compare and set: the term must lead and the revision must be the newest; then all of it.

What is kept for judges goes with the rollout that it is of. Every write looks for it, since earlier versions kept it.
"""

_WITHDRAW = """
local running = redis.call('HGET', KEYS[2], ARGV[1])
if not running or cjson.decode(running)['id'] ~= ARGV[2] then return 0 end
if redis.call('HSETNX', KEYS[2], 'withdrawn/' .. ARGV[2], ARGV[3]) == 1 then redis.call('INCR', KEYS[1]) end
return 1
"""
"""Once for each rollout that runs, whoever leads: every control plane reads it with the next revision."""

_KEEP = """
local held = redis.call('GET', KEYS[1])
if not held or cjson.decode(held)['term'] ~= tonumber(ARGV[1]) then return {'leader', held or ''} end
local running = redis.call('HGET', KEYS[2], ARGV[2])
if not running or cjson.decode(running)['id'] ~= ARGV[3] then return {'ok', ''} end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[4], ARGV[3], ARGV[5]) end
return {'ok', ''}
"""
"""Of a rollout that runs; one whose end was written, also where its answer was lost, stays ended."""

_rollout = TypeAdapter(Rollout)
_standing = TypeAdapter(Standing)
_seals = TypeAdapter(Seals)
_act = TypeAdapter(Act)
_leader = TypeAdapter(Leader)
_withdrawal = TypeAdapter(Withdrawal)


class RedisRollouts:
    """A :class:`serin_control.rollouts.store.RolloutStore` in Redis.

    Args:
        url: ``redis://host:port/db``, ``rediss://`` or ``unix://``.
    """

    def __init__(self, url: str) -> None:
        self._redis = opened(url)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def lead(self, who: Leader, ttl_s: float) -> Leader:
        """Take the lead, or keep it for another ``ttl_s``."""
        held = await self._run(_LEAD, ("leader", "term"), who.name, who.address, who.boot, str(int(ttl_s * 1000)))
        return _leader.validate_json(held)

    async def resign(self, who: Leader) -> None:
        """Give the lead up, if one has it."""
        await self._run(_RESIGN, ("leader",), who.boot)

    async def read(self, known: int) -> Book | None:
        """The book, or None if it is still of the revision that is ``known``."""
        with translated():
            if int(await awaited(self._redis.get(ROLLOUTS + "revision")) or 0) == known:
                return None
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.get(ROLLOUTS + "revision")
                transaction.hgetall(ROLLOUTS + "book")
                revision, fields = await transaction.execute()
        return _book(int(revision or 0), fields)

    async def write(self, leader: Leader, book: Book, change: Change) -> Book:
        """Write a change of a book."""
        answer = await self._run(
            _WRITE,
            ("leader", "revision", "book", "all", "order", "acts", "golden", "judges"),
            str(leader.term),
            str(book.revision),
            json.dumps(_written(leader, change)),
        )
        self._check(answer)
        return replace(changed(book, change), revision=int(answer[1]))

    async def withdraw(self, withdrawal: Withdrawal) -> None:
        """Put into the book that a rollout was taken back."""
        rollout = withdrawal.rollout
        text = _withdrawal.dump_json(withdrawal).decode()
        await self._run(_WITHDRAW, ("revision", "book"), f"rollout/{rollout.model}", rollout.id, text)

    async def keep(self, leader: Leader, rollout: Rollout, judge: Mapping[str, Any] | None) -> None:
        """Keep how far a rollout and its judge have come."""
        answer = await self._run(
            _KEEP,
            ("leader", "book", "all", "judges"),
            str(leader.term),
            f"rollout/{rollout.model}",
            rollout.id,
            _rollout.dump_json(rollout).decode(),
            json.dumps(judge) if judge is not None else "",
        )
        self._check(answer)

    async def judge(self, rollout: str) -> Mapping[str, Any] | None:
        """What was kept of a rollout's judge."""
        with translated():
            text = await awaited(self._redis.hget(ROLLOUTS + "judges", rollout))
        kept: Mapping[str, Any] | None = json.loads(text) if text else None
        return kept

    async def golden(self, rollout: str) -> str:
        """The golden set of a rollout."""
        with translated():
            return str(await awaited(self._redis.hget(ROLLOUTS + "golden", rollout)) or "")

    async def rollout(self, rollout: str) -> Rollout | None:
        """A rollout, running or ended."""
        with translated():
            text = await awaited(self._redis.hget(ROLLOUTS + "all", rollout))
        try:
            return _rollout.validate_json(text) if text else None
        except ValueError as error:
            raise RolloutNotFound(
                f"rollout {rollout!r} is in state Redis, and cannot be read here: another version of Serin wrote it"
            ) from error

    async def rollouts(self, model: str, size: int, after: str) -> Page:
        """Rollouts, newest first."""
        with translated():
            last = await awaited(self._redis.zscore(ROLLOUTS + "order", after)) if after else None
            top = f"({last:.0f}" if last is not None else "+inf"
            ids = await awaited(self._redis.zrevrangebyscore(ROLLOUTS + "order", top, "-inf"))
            if model:  # an id begins with its model's name
                ids = [one for one in ids if one.rpartition("-")[0] == model]
            page = ids[:size]
            texts = await awaited(self._redis.hmget(ROLLOUTS + "all", page)) if page else []
        found: list[Rollout] = []
        unreadable: list[str] = []
        for name, text in zip(page, texts, strict=True):
            try:
                found += [_rollout.validate_json(text)] if text else []
            except ValueError:  # another version wrote it in a way that this one cannot read
                unreadable.append(name)
        return Page(found, page[-1] if len(ids) > size else "", tuple(unreadable))

    async def acts(self, rollout: str, size: int, after: str) -> tuple[list[Act], str]:
        """The history, newest first."""
        top, last = f"({after}" if after else "+", ""
        found: list[Act] = []
        while len(found) < size:
            with translated():
                lines = await awaited(self._redis.xrevrange(ROLLOUTS + "acts", top, "-", count=PAGE))
            for name, fields in lines:
                act = _line(name, fields)
                if rollout and act.rollout != rollout:
                    continue
                if len(found) == size:
                    return found, last
                found.append(act)
                last = name
            if len(lines) < PAGE:
                return found, ""
            top = f"({lines[-1][0]}"
        return found, last

    async def next_number(self) -> int:
        """A number that no rollout was given before."""
        with translated():
            return int(await awaited(self._redis.incr(ROLLOUTS + "number")))

    async def _run(self, script: str, keys: Sequence[str], *arguments: str) -> Any:
        with translated():
            return await awaited(self._redis.eval(script, len(keys), *(ROLLOUTS + key for key in keys), *arguments))

    def _check(self, answer: Sequence[str]) -> None:
        verdict, held = answer
        if verdict == "leader":
            now = _leader.validate_json(held) if held else Leader("nobody")
            raise NotLeading(f"{now.name} leads by now", now.address)
        if verdict == "revision":
            raise RolloutConflict("somebody else changed it first: look again")


def _line(name: str, fields: Mapping[str, str]) -> Act:
    """A line of the history; ``name`` is its place in the stream, which begins with milliseconds since 1970."""
    try:
        return _act.validate_json(fields.get("act", ""))
    except ValueError:
        why = "another version of Serin wrote this line in a way that cannot be read here"
        return Act(int(name.partition("-")[0]) / 1000, "", "", "unreadable", why)


def _book(revision: int, fields: Mapping[str, str]) -> Book:
    rollouts: dict[str, Rollout] = {}
    standings: dict[str, Standing] = {}
    withdrawn: dict[str, Withdrawal] = {}
    seals: dict[str, Seals] = {}
    unreadable: list[str] = []
    for field, text in fields.items():
        kind, _, name = field.partition("/")
        try:
            if kind == "rollout":
                rollouts[name] = _rollout.validate_json(text)
            elif kind == "standing":
                standings[name] = _standing.validate_json(text)
            elif kind == "seals":
                seals[name] = _seals.validate_json(text)
            elif kind == "withdrawn":
                withdrawn[name] = _withdrawal.validate_json(text)
        except ValueError:  # another version wrote it in a way that this one cannot read
            unreadable.append(field)
    frozen = fields.get("frozen", "")
    return Book(revision, rollouts, standings, frozen, among(withdrawn, rollouts), tuple(unreadable), seals)


def _written(leader: Leader, change: Change) -> dict[str, Any]:
    """A change as the script takes it."""
    acts = [_act.dump_json(replace(act, term=leader.term)).decode() for act in change.acts]
    book: dict[str, str] = {}
    gone: list[str] = []
    written = {"book": book, "book_gone": gone, "all": {}, "golden": {}, "acts": acts, "number": 0}
    if change.standing is not None:
        book[f"standing/{change.standing.model}"] = _standing.dump_json(change.standing).decode()
    if change.seals is not None:
        book[f"seals/{change.seals.model}"] = _seals.dump_json(change.seals).decode()
    if change.frozen:
        book["frozen"] = change.frozen
    elif change.frozen is not None:
        gone.append("frozen")
    if (rollout := change.rollout) is not None:
        text = _rollout.dump_json(rollout).decode()
        if rollout.ended:
            gone += [f"rollout/{rollout.model}", f"withdrawn/{rollout.id}"]
        else:
            book[f"rollout/{rollout.model}"] = text
        written["all"] = {rollout.id: text}
        written["number"] = int(rollout.id.rpartition("-")[2])
        if change.golden:
            written["golden"] = {rollout.id: change.golden}
    return written
