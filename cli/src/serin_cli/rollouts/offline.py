"""`abort --offline`: with every control plane dead or hanging, the abort is written where the next one will read it.

The command takes the lead in state Redis for that moment, as a control plane would, so it can never contradict one
that lives. Traffic follows when a control plane starts; until then gateways go on as they were told last.
"""

import argparse
import contextlib
import secrets
import time

from serin_control.errors import ControlError, NotLeading, StoreDown
from serin_control.rollouts import machine, words
from serin_control.rollouts.act import Act
from serin_control.rollouts.redis_store import RedisRollouts
from serin_control.rollouts.rollout import Rollout, State
from serin_control.rollouts.settling import after
from serin_control.rollouts.spec import percent
from serin_control.rollouts.standing import Standing
from serin_control.rollouts.store import Book, Change, Leader

from serin_cli.arguments import redis_url, state_path
from serin_cli.errors import CliError
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say

LEAD_S = 5.0


def add_offline(parser: argparse.ArgumentParser) -> None:
    """Add the flags of an abort without a control plane."""
    parser.add_argument(
        "--offline",
        action="store_true",
        help="every control plane is dead or hangs: write it into state Redis for the next",
    )
    parser.add_argument("--state-redis", type=redis_url, metavar="URL", help="that Redis, where `serin up` runs none")


async def abort_offline(arguments: argparse.Namespace) -> int:
    """Write the abort of a rollout; one that was aborted before stays as it is.

    Raises:
        CliError: a control plane lives, the rollout was promoted or is not there, or Redis does not answer.
    """
    url = arguments.state_redis or read_record(StateDir(state_path(arguments.state))).state_redis
    store = RedisRollouts(url)
    me = Leader(f"serin-cli-{secrets.token_hex(4)}", boot=secrets.token_hex(8))
    try:
        leader = await store.lead(me, LEAD_S)
        if leader.boot != me.boot:
            raise CliError(
                f"control plane {leader.name} leads: nothing was written; leave out --offline; if it just died or "
                "hangs, wait 3 s"
            )
        had, rollout = await _write(store, leader, arguments)
    except StoreDown as error:
        raise CliError(f"{error}; --offline needs state Redis alive") from error
    except (NotLeading, ControlError) as error:
        raise CliError(f"nothing was written: {error}") from error
    finally:
        await _leave(store, me)
    if had is None:
        say(f"{rollout.id}: no effect: it has ended: {rollout.reason}")
        return 0
    say(f"{rollout.id} is {rollout.state}, for the next control plane to read")
    say(
        f"no traffic has moved yet: gateways go on as they were told last, with {percent(had)} of new sessions on "
        f"{rollout.spec.to_version}, until a control plane starts; all of it goes to {rollout.from_version} then"
    )
    return 0


async def _write(store: RedisRollouts, leader: Leader, arguments: argparse.Namespace) -> tuple[int | None, Rollout]:
    """Abort the rollout; its weight before, of 10,000 (None: it was aborted already), and what became of it."""
    book = await store.read(-1) or Book()
    running = next((one for one in book.rollouts.values() if one.id == arguments.id), None)
    if running is None:
        ended = await store.rollout(arguments.id)
        if ended is None:
            raise CliError(f"no rollout {arguments.id!r} in state Redis")
        if ended.state is State.ABORTED:
            return None, ended
        raise CliError(f"{arguments.id}: no effect: it has ended: {ended.reason}")
    now = time.time()
    why = (arguments.reason or "no reason given").rstrip(".")
    # Nobody wrote what the judge heard in its last seconds.
    by, traffic = f"{arguments.actor}, offline", words.for_the_next(running)
    move = machine.take_back(running, why, now, by, traffic=traffic, is_counted=False)
    scope = running.spec.scope
    standing = book.standings.get(scope) or Standing(scope, running.arms.stable)
    settled = after(move.rollout, standing, standing.declared, now)
    act = Act(now, running.id, arguments.actor, move.what, move.reason, "offline")
    await store.write(leader, book, Change((act,), move.rollout, settled))
    return running.weight, move.rollout


async def _leave(store: RedisRollouts, me: Leader) -> None:
    with contextlib.suppress(StoreDown):  # then it lapses by itself
        await store.resign(me)
    await store.close()
