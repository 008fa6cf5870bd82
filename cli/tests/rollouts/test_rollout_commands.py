"""The rollout commands against a real control plane whose judge says what a test tells it."""

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
from serin.control.v1 import rollout_pb2_grpc
from serin_cli.__main__ import main
from serin_cli.rollouts import client, shown
from serin_cli.rollouts.client import ControlPlanes
from serin_control.assembly import Control
from serin_control.declared import InitialFile
from serin_control.errors import StoreDown
from serin_control.instance import Capacity, Digests, Registration, Service, State, Status
from serin_control.judge.observation import Observation
from serin_control.judge.verdict import Verdict
from serin_control.registry import LeaseTerms
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.store import MemoryRollouts
from serin_control.testing import ScriptedCourt
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import free_port, running

CONFIG = "models: {small: {versions: {v1: {path: /m/v1, weight: 1}, v2: {path: /m/v2, weight: 0}}}}\n"
START = ["rollout", "start", "--model", "small", "--service", "worker", "--to", "v2", "--intent", "same"]


class Court(ScriptedCourt):
    """Judges as it is told, and accepts what real judges do."""

    def check(self, spec) -> None:
        """Refuse what a judge cannot keep."""
        JudgeCourt().check(spec)


class Mesh:
    """A control plane, its judges, and the command line."""

    def __init__(self, control: Control, court: ScriptedCourt, address: str, capsys) -> None:
        self.control, self.court, self.address, self._capsys = control, court, address, capsys

    async def serin(self, *arguments: str, address: str = "") -> tuple[int, str, str]:
        """Run a command; its exit code and what it printed."""
        code = await asyncio.to_thread(main, [*arguments, "--control", address or self.address])
        out, err = self._capsys.readouterr()
        lines = [line for line in out.splitlines(keepends=True) if not line.startswith("[info")]
        return code, "".join(lines), err

    async def until(self, rollout_id: str, holds) -> None:
        """Wait until something holds of a rollout."""
        async for rollout in self.control.desk.watch(rollout_id):
            if holds(rollout):
                return
        raise AssertionError("it ended")

    def judge(self, verdict: Verdict, requests: int = 50) -> None:
        """Have the running rollout judged."""
        (trial,) = self.control.rollouts.bench.running()
        for number in range(requests):
            seen = Observation(f"r{number}", trial.canary_lane, number, 1.0)
            self.control.rollouts.bench.observe("small", seen)
        arbiter = self.court.arbiters[trial.rollout_id]
        arbiter.reason = "errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 requests)"
        arbiter.verdict = verdict


def announce(control: Control, name: str, service: Service, version: str, port: int) -> None:
    """An instance that is ready."""
    worker = service is Service.WORKER
    ticket = control.plane.announce(Registration(name, service, "small", version, f"127.0.0.1:{port}"))
    digests = Digests(("3a" if worker else "7a") + version.encode().hex(), "aa", "cc" if worker else "", "cpu")
    capacity = Capacity(8, 64, 16, 512) if worker else Capacity()
    control.plane.beat(ticket, Status(State.READY, 1.0, digests=digests, capacity=capacity))


@asynccontextmanager
async def controlled(store=None, name="c1", port=0):
    """A control plane that serves; yields it, its judges and its address, which others know if it is given its port."""
    court = Court()
    control = Control(
        rollouts=store,
        court=court,
        initial=InitialFile("serin.yaml", CONFIG),
        name=name,
        address=f"127.0.0.1:{port}" if port else "",
        terms=LeaseTerms(3_600.0, 3_600.0),  # nobody here has a heart that beats
    )
    await control.start()
    settings = ServiceSettings(instance=name, port=port, drain_grace_s=1, drain_notice_s=0)
    async with running(control.register, "control", settings=settings) as server:
        loop = asyncio.create_task(control.run())
        announce(control, "t1", Service.TOKENIZER, "v1", 2001)
        announce(control, "w1", Service.WORKER, "v1", 2002)
        announce(control, "w2", Service.WORKER, "v2", 2003)
        try:
            yield control, court, server.address
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


@pytest.fixture
async def mesh(capsys):
    """One control plane with two versions of a worker."""
    async with controlled() as (control, court, address):
        yield Mesh(control, court, address, capsys)


async def test_a_release_from_plan_to_rollback(mesh):
    """Every step at the command line; `start` prints the id alone on its last line."""
    asked = ["--model", "small", "--service", "worker", "--to", "v2", "--intent", "same"]
    code, out, _ = await mesh.serin("rollout", "plan", *asked, "--rate", "2/s")
    assert (code, out.splitlines()[0][:24]) == (0, "at 2 new sessions/s, if ")
    assert "400" in out
    code, out, err = await mesh.serin(*START, "--steps", "1%,50%", "--actor", "ann")
    assert (code, out, err) == (0, "small-1\n", "started; `serin rollout watch small-1` shows it\n")
    await mesh.until("small-1", lambda one: one.weight == 100)
    mesh.judge(Verdict.PROMOTE)
    await mesh.until("small-1", lambda one: one.weight == 5_000)
    code, out, _ = await mesh.serin("rollout", "get", "small-1", "--json")
    found = json.loads(out)
    assert {key: found[key] for key in ("state", "step", "weight", "exposure")} == {
        "state": "running",
        "step": 1,
        "weight": 50.0,
        "exposure": {"sessions": 50, "requests": 50},
    }
    assert set(found["verdicts"][0]) >= {"metric", "verdict", "difference", "low", "high", "samples"}
    assert found["reason"]
    watching = asyncio.create_task(mesh.serin("rollout", "watch", "small-1"))
    mesh.judge(Verdict.PROMOTE)
    code, out, _ = await watching
    assert (code, out.splitlines()[-1][:24]) == (0, "small-1 promoted 100 % (")
    code, out, _ = await mesh.serin("rollback", "--model", "small", "--reason", "smells")
    assert (code, out) == (0, "all traffic of small is on v1\n")
    code, out, _ = await mesh.serin("rollout", "history", "--json")
    acts = json.loads(out)
    assert [act["what"] for act in acts] == ["rollback", "promote", "step", "step", "start"]
    assert (acts[0]["reason"], acts[-1]["actor"]) == (
        "small: tokenizer v1, worker v2 -> tokenizer v1, worker v1: smells",
        "ann",
    )
    code, out, _ = await mesh.serin("rollout", "list")
    assert (code, "small-1" in out, "promoted" in out) == (0, True, True)
    code, out, err = await mesh.serin("rollout", "history", "nope")
    assert (code, out, err) == (1, "", "no rollout 'nope'; `serin rollout list` shows them\n")


async def test_an_abort_is_explained_in_plain_words(mesh):
    """What was seen, who saw it, where the traffic is, what comes next."""
    await mesh.serin(*START)
    await mesh.until("small-1", lambda one: one.weight == 100)
    mesh.judge(Verdict.ABORT, 38)
    with pytest.raises(AssertionError):
        await mesh.until("small-1", lambda one: False)
    code, out, _ = await mesh.serin("rollout", "explain", "small-1")
    lines = out.splitlines()
    assert (code, lines[0]) == (
        0,
        "Aborted at 1 %: errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 requests). 38 sessions saw it in 38 "
        "requests. All traffic is on v1.",
    )
    assert lines[-1].startswith("Next: running answers of v2 end where they are; mend it")
    code, out, err = await mesh.serin("rollout", "abort", "small-1")
    assert (code, out[:41], err) == (0, "small-1: no effect: it has ended: Aborted", "")
    assert (await mesh.serin("rollout", "promote", "small-1"))[0] == 1
    assert (await mesh.serin("rollout", "watch", "small-1"))[0] == 1


async def test_people_pause_resume_and_freeze(mesh):
    """Each says what holds now."""
    await mesh.serin(*START, "--manual")
    code, out, _ = await mesh.serin("rollout", "pause", "small-1", "--reason", "lunch", "--actor", "ann")
    assert (code, out) == (0, "small-1 is paused: ann: lunch\n")
    code, out, _ = await mesh.serin("rollout", "pause", "small-1")
    assert (code, out) == (0, "small-1: no effect: it is paused already: ann: lunch\n")
    (act, *_) = json.loads((await mesh.serin("rollout", "history", "--json"))[1])
    assert (act["what"], act["actor"], act["reason"]) == ("pause", "ann", "lunch")
    assert (await mesh.serin("rollout", "resume", "small-1"))[0] == 0
    assert (await mesh.serin("freeze", "--reason", "xmas"))[1] == "rollouts are frozen\n"
    code, _, err = await mesh.serin("rollout", "promote", "small-1")
    assert (code, err[:45]) == (1, "rollouts are frozen, none may promote: xmas (")
    assert (await mesh.serin("freeze", "--off"))[1] == "rollouts are not frozen\n"
    assert (await mesh.serin("freeze", "--off"))[1] == "rollouts are not frozen, as they were before\n"


async def test_what_people_write_is_no_markup(mesh):
    """In the history and in every view of a rollout a reason is there as it was given."""
    reason = "[/b] [inc-42] deploy stop [see wiki] :boom:"
    await mesh.serin("freeze", "--reason", reason, "--actor", "[red]ann")
    await mesh.serin("freeze", "--off")
    assert f"[red]ann  {reason}" in (await mesh.serin("rollout", "history"))[1]
    await mesh.serin(*START, "--actor", "[/b]")
    await mesh.serin("rollout", "abort", "small-1", "--reason", reason)
    for view in (["list"], ["get", "small-1"], ["explain", "small-1"], ["watch", "small-1"], ["history", "small-1"]):
        assert reason in (await mesh.serin("rollout", *view))[1], view


async def test_an_experiment_splits_and_is_stopped(mesh):
    """A fixed share; it is no rollout, and a rollout is no experiment."""
    start = ["experiment", "start", "--model", "small", "--to", "v2", "--share", "30%"]
    code, out, _ = await mesh.serin(*start)
    assert (code, out) == (0, "small-1\n")
    await mesh.until("small-1", lambda one: one.weight == 3_000)
    code, out, _ = await mesh.serin("experiment", "get", "small-1", "--json")
    assert (json.loads(out)["intent"], json.loads(out)["weight"]) == ("experiment", 30.0)
    code, out, _ = await mesh.serin("experiment", "stop", "small-1", "--actor", "ann")
    assert (code, out[:37]) == (0, "Stopped at 30 %: by ann: stopped. Nob")
    (act, *_) = json.loads((await mesh.serin("rollout", "history", "--json"))[1])
    assert (act["what"], act["actor"], act["reason"]) == ("abort", "ann", "stopped")
    assert "`serin experiment get small-1` shows" in (await mesh.serin("rollout", "explain", "small-1"))[1]
    code, out, _ = await mesh.serin("experiment", "stop", "small-1")
    assert (code, out[:33]) == (0, "small-1: no effect: it has ended:")
    await mesh.serin(*START)
    assert (await mesh.serin("experiment", "get", "small-2"))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*START, "--steps", "5%,1%"], "steps: step 2: 1 % after 5 %: accepted: each above the one before"),
        ([*START, "--steps", "1%,101%"], "steps: 101 %: accepted: 0.01 % to 100 %"),
        ([*START, "--tolerance", "speed=1"], "tolerances.speed: no such metric: accepted: errors, first_token"),
        ([*START[:6], "--to", "v9", "--intent", "same"], "to_version: nobody announces worker v9 of small"),
        (
            ["rollout", "start", "--model", "small", "--service", "gateway", "--to", "v2", "--intent", "same"],
            "service: a gateway rollout is split by Envoy: accepted: with `serin up --edge` only",
        ),
        (["rollout", "start", "--model", "small", "--service", "worker", "--to", "v2"], "--intent: not set: accepted:"),
        ([*START, "--golden", "/nowhere"], "--golden: '/nowhere': No such file or directory: accepted:"),
        (
            ["experiment", "start", "--model", "small", "--to", "v2", "--share", "0%"],
            "serin experiment start: --share: '0%': accepted: a share such as 5%, from 0.01% to 99.99%",
        ),
        ([*START, "--steps", "five"], "serin rollout start: --steps: 'five': accepted: shares such as 1%,5%"),
        ([*START, "--tolerance", "errors"], "serin rollout start: --tolerance: 'errors': accepted: a metric and"),
        ([*START, "--tolerance", "errors=1e-7"], "tolerances.errors: 1e-07: accepted: at least 0.005, the smallest"),
        ([*START, "--tolerance", "errors=5"], "tolerances.errors: 5: accepted: above 0 and below 0.9, a share: 0.01"),
        (["rollout", "plan", *START[2:], "--rate", "2/s", "--tolerance", "errors=5"], "tolerances.errors: 5: accepted"),
        ([*START, "--baseline"], "baseline: nobody announces worker v1-baseline of small, which the new version is"),
        ([*START, "--max-duration", "-1h"], "serin rollout start: --max-duration: '-1h': accepted: a number above 0"),
        (
            [*START, "--max-duration", "31d"],
            "serin rollout start: --max-duration: '31d': accepted: a number above 0 and s, min, h or d, such as 24h; "
            "from 1s to 30d",
        ),
        (["rollout", "list", "--model", "nope"], "model: 'nope': no such model: accepted: small"),
        ([*START, "--max-duration", "soon"], "serin rollout start: --max-duration: 'soon': accepted: a number above"),
    ],
)
async def test_what_cannot_be_meant_is_one_line_with_exit_code_2(mesh, arguments, said):
    """Key, value, what is accepted."""
    code, out, err = await mesh.serin(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


async def test_what_is_refused_of_a_plan_file_has_its_line(mesh, tmp_path):
    """Also what only the control plane can know."""
    file = tmp_path / "plan.yaml"
    file.write_text("model: small\nservice: worker\nintent: same\nto: v9\nsteps:\n  - 5%\n  - 1%\n")
    code, _, err = await mesh.serin("rollout", "start", "--plan", str(file))
    assert (code, err) == (2, f"{file}:7: steps: step 2: 1 % after 5 %: accepted: each above the one before\n")
    file.write_text("model: small\nservice: worker\nintent: same\nto: v2\ntolerances:\n  first_token: 1\n  errors: 5\n")
    code, _, err = await mesh.serin("rollout", "start", "--plan", str(file))
    assert (code, err.startswith(f"{file}:7: tolerances.errors: 5: accepted: above 0 and below 0.9")) == (2, True)
    file.write_text("model: small\nservice: worker\nintent: same\nto: v9\n")
    code, _, err = await mesh.serin("rollout", "start", "--plan", str(file), "--steps", "1%")
    assert (code, err.startswith(f"{file}:4: to: nobody announces worker v9")) == (2, True)


async def test_a_plan_says_what_is_missing(mesh):
    """A version that nobody announces yet, and what would judge the answers; an intent need not be said."""
    asked = ["rollout", "plan", "--model", "small", "--service", "worker", "--rate", "2/s"]
    code, out, _ = await mesh.serin(*asked, "--to", "v2")
    assert (code, "note:" in out) == (0, False)
    code, out, _ = await mesh.serin(*asked, "--to", "v2", "--tolerance", "errors=0.001")
    assert (code, "note: at this rate `serin rollout start` refuses it: tolerances.errors: 0.001: " in out) == (0, True)
    code, out, _ = await mesh.serin(*asked, "--to", "v9", "--intent", "better", "--json")
    note = json.loads(out)["note"]
    assert (code, note[:70]) == (0, "it could not start now: to_version: nobody announces worker v9 of smal")
    assert "without a golden set" in note
    code, _, err = await mesh.serin(*asked[:3], "nope", *asked[4:], "--to", "v2")
    assert (code, err) == (2, "model: 'nope': no such model: accepted: small\n")
    code, _, err = await mesh.serin(*START[:-1], "better")
    assert (code, "without a golden set answers are judged by callers' feedback" in err) == (0, True)


async def test_a_rollback_to_what_was_never_judged_says_so(mesh):
    """It is carried out all the same."""
    code, out, err = await mesh.serin("rollback", "--model", "small", "--to", "v2")
    assert (code, out) == (0, "all traffic of small is on v2\n")
    assert err == "note: worker v2 was never judged: no rollout promoted it, and it had no traffic before\n"


async def test_what_is_not_known_is_null(mesh):
    """Nobody was seen on the new version: no difference, no interval."""
    await mesh.serin(*START)
    await mesh.until("small-1", lambda one: one.weight == 100 and one.canary_lane)
    mesh.judge(Verdict.WAIT, 0)
    await mesh.until("small-1", lambda one: one.verdicts)
    (found,) = json.loads((await mesh.serin("rollout", "get", "small-1", "--json"))[1])["verdicts"]
    assert (found["samples"], found["difference"], found["low"], found["high"]) == (0, None, None, None)


async def test_a_broken_golden_set_is_named_before_anything_starts(mesh, tmp_path):
    """File, line and key."""
    file = tmp_path / "g.jsonl"
    file.write_text('{"id": "a", "prompt": "x", "expect": {"exact": "y"}}\n{"id": "b"}\n')
    arguments = [*START[:-1], "better", "--golden", str(file)]
    code, _, err = await mesh.serin(*arguments)
    assert (code, err) == (
        2,
        f"{file}:2: prompt: neither 'prompt' nor 'messages'; accepted: one of the two\n",
    )
    for of in ([], ["--model", "small"]):
        assert (await mesh.serin("rollout", "list", *of))[1] == (
            "no rollouts yet; `serin rollout start --help` says how to start one\n"
        )


class Away(MemoryRollouts):
    """A store that can be down for whoever leads or wants to."""

    away = False

    async def read(self, known):
        """The book."""
        self._check_there()
        return await super().read(known)

    async def write(self, leader, book, change):
        """Change it."""
        self._check_there()
        return await super().write(leader, book, change)

    def _check_there(self):
        if self.away:
            raise StoreDown("state Redis does not answer")


class Silent(rollout_pb2_grpc.RolloutServiceServicer):
    """A control plane that answers nobody until another one has been told."""

    def __init__(self, other: Control) -> None:
        self._other = other
        self.was_waited_for = False

    async def ActOnRollout(self, request, context):  # noqa: N802 - the method's name in the contract
        """Say nothing until then, and fail."""
        looks = self._other.rollouts.looks
        try:
            while self._other.desk.is_written(request.rollout_id):
                await looks.after(looks.version)
        except asyncio.CancelledError:
            self.was_waited_for = True
            raise
        raise MeshError(Reason.NOT_READY, "never mind")


async def test_who_does_not_lead_says_who_does_and_is_followed(capsys):
    """The command asks the other one by itself; with nobody there it says so.

    With the store away an abort is said to both, and to each only what it means for it.
    """
    store = Away()
    async with (
        controlled(store, port=free_port()) as (first, court, address),
        controlled(store, "c2") as (second, _, other),
    ):
        mesh = Mesh(second, court, other, capsys)
        assert not second.rollouts.leadership.leads
        code, out, _ = await mesh.serin(*START)
        assert (code, out) == (0, "small-1\n")
        code, out, _ = await mesh.serin("rollout", "list", address=f"127.0.0.1:1,{other}")
        assert (code, "small-1" in out) == (0, True)
        await mesh.until("small-1", lambda one: one.weight == 100)
        while second.rollouts.book.revision < first.rollouts.book.revision:
            await second.rollouts.looks.after(second.rollouts.looks.version)
        store.away = True
        for one in (first, second):
            while not one.rollouts.is_cut_off:
                await one.rollouts.looks.after(one.rollouts.looks.version)
        for view in (["list"], ["explain", "small-1"]):
            for where in (address, other):
                code, out, _ = await mesh.serin("rollout", *view, address=where)
                assert (code, "small-1" in out) == (0, True)
                assert "state Redis does not answer" in " ".join(out.split())
        silent = Silent(second)
        add = partial(rollout_pb2_grpc.add_RolloutServiceServicer_to_server, silent)
        async with running(add, "control", settings=ServiceSettings(drain_grace_s=1, drain_notice_s=0)) as third:
            everybody = f"{address},{third.address},{other}"
            code, out, err = await mesh.serin("rollout", "abort", "small-1", address=everybody)
        assert not silent.was_waited_for
        assert (code, out.startswith("small-1 is aborted: Aborted at 1 %: by ")) == (0, True)
        assert "warning: state Redis does not answer: small-1 is off the new version" in err
        assert f"listens to the control plane at {address}, {other}, which writes it when" in err
        code, out, _ = await mesh.serin("rollout", "abort", "small-1", address=address)
        assert (code, out.startswith("small-1: no effect: it has ended")) == (0, True)
        store.away = False
        while not (second.desk.is_written("small-1") and "abort" in (await mesh.serin("rollout", "history"))[1]):
            await second.rollouts.looks.after(second.rollouts.looks.version)
        code, out, err = await mesh.serin("rollout", "abort", "small-1", address=f"{other},{address}")
        assert (code, out.startswith("small-1: no effect: it has ended"), err) == (0, True, "")
        assert [act.what for act in (await store.acts("", 10, ""))[0]] == ["abort", "step", "start"]
    code, _, err = await mesh.serin("rollout", "abort", "small-1", address="127.0.0.1:1")
    assert (code, err.startswith("no control plane answers"), "`serin rollout abort small-1 --offline`" in err) == (
        1,
        True,
        True,
    )
    code, _, err = await mesh.serin("rollout", "list", address="127.0.0.1:1")
    assert (code, err[:45]) == (1, "no control plane answers at 127.0.0.1:1: UNAV")


async def test_who_hangs_is_given_up_for_another(mesh, hung, monkeypatch):
    """It is named, with the way past it; one beside it that answers is asked in its place."""
    for name in ("PATIENCE_S", "LIVES_S", "FIRST_S"):
        monkeypatch.setattr(client, name, 0.3)
    await mesh.serin(*START)
    code, out, _ = await mesh.serin("rollout", "pause", "small-1", address=f"{hung},{mesh.address}")
    assert (code, out[:18]) == (0, "small-1 is paused:")
    code, _, err = await mesh.serin("rollout", "abort", "small-1", address=hung)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(
        f"no control plane answers at {hung}: {hung} says nothing: it hangs, or the way there is cut; see"
    )
    assert "dead or hang, `serin rollout abort small-1 --offline` writes it" in err
    code, _, err = await mesh.serin("rollback", "--model", "small", address=hung)
    assert (code, "`serin rollout abort ID --offline`" in err) == (1, True)
    code, _, err = await mesh.serin("rollout", "watch", "small-1", address=hung)
    assert (code, "it hangs" in err) == (1, True)


async def test_a_watch_goes_on_when_a_control_plane_is_back(capsys):
    """It says once that it waits; it ends with the rollout, not with the control plane."""
    store, seen, said = MemoryRollouts(), asyncio.Queue(), asyncio.Queue()

    async def follow(address: str) -> None:
        async with ControlPlanes([address]) as planes:
            async for rollout in planes.watch("small-1", said.put_nowait):
                seen.put_nowait(shown.state_of(rollout))

    async with controlled(store) as (control, _, address):
        mesh = Mesh(control, Court(), address, capsys)
        assert (await mesh.serin(*START))[0] == 0
        watching = asyncio.create_task(follow(address))
        assert await seen.get() in ("running", "waiting")
    store.lapse()
    waits = await said.get()
    async with controlled(store, port=int(address.rpartition(":")[2])) as (control, court, address):
        assert (await Mesh(control, court, address, capsys).serin("rollout", "abort", "small-1"))[0] == 0
        await watching
    assert said.empty()
    assert waits.startswith(f"no control plane answers at {address}: waiting up to 5 min for it to be back")
    while not seen.empty():
        last = seen.get_nowait()
    assert last == "aborted"
