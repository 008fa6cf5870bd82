"""RolloutService as callers meet it: a whole rollout over gRPC, refusals by reason, who may act."""

import asyncio

import pytest
from control_rollouts import rollout
from control_running import controlled, echo, lanes, topology_where
from serin.control.v1 import lane_pb2, lane_pb2_grpc, registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_control.assembly import CALLERS, Control
from serin_control.instance import Service
from serin_control.judge.observation import Observation
from serin_control.judge.verdict import Verdict
from serin_control.services.rollout_messages import rollout_message
from serin_control.testing import ScriptedCourt
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

CONFIG = (
    "models: {small: {versions: {v1: {path: /m/v1}, v2: {path: /m/v2, weight: 0}, v9: {path: /m/v9, weight: 0}}}}\n"
)
CONFIG = CONFIG.replace("/m/v1}", "/m/v1, weight: 1}")


def start_request(**changes) -> rollout_pb2.StartRolloutRequest:
    """Worker v1 to v2 in two steps."""
    fields = {
        "model": "small",
        "service": registry_pb2.SERVICE_KIND_WORKER,
        "to_version": "v2",
        "intent": rollout_pb2.ROLLOUT_INTENT_SAME,
        "steps": [
            rollout_pb2.RolloutStep(weight_percent=1.0, min_sample_count=3, max_seconds=60),
            rollout_pb2.RolloutStep(weight_percent=50.0, min_sample_count=3, max_seconds=60),
        ],
        "actor": "ann",
    }
    return rollout_pb2.StartRolloutRequest(**(fields | changes))


def test_who_has_the_new_sessions_is_told_where_the_weight_does_not_say_it():
    """`Rollout.traffic`; empty while both versions take calls."""
    half = {"weight": 5_000, "was_given": True}
    assert rollout_message(rollout(**half)).traffic == ""
    assert rollout_message(rollout(**half, stable_away=True)).traffic == "v1 takes no calls: v2 has all of them"
    assert rollout_message(rollout(**half, canary_away=True)).traffic == "v2 takes no calls: v1 has all of them"


@pytest.fixture
async def mesh():
    """A control plane with two workers of different versions; yields it, its judges and a stub."""
    court = ScriptedCourt()
    async with (
        controlled(CONFIG, court=court) as (control, address),
        echo(address, "t1", Service.TOKENIZER),
        echo(address, "w1"),
        echo(address, "w2", version="v2"),
        connect(address, ServiceSettings()) as channel,
    ):
        await topology_where(control, lambda t: "v1" in lanes(t))
        while not any(i.registration.version == "v2" and i.takes_calls for i in control.plane.registry.instances()):
            await control.plane.standing.after(control.plane.standing.version)
        yield control, court, channel


async def weights_become(control: Control, wanted: dict[str, int]) -> None:
    """Wait until the published weights are these."""
    await topology_where(control, lambda t: {v: weight for v, (_, weight) in lanes(t).items()} == wanted)


def observe(control: Control, num: int, first: int) -> None:
    """So many requests end well on the canary."""
    (trial,) = control.rollouts.bench.running()
    for number in range(first, first + num):
        control.rollouts.bench.observe("small", Observation(f"r{number}", trial.canary_lane, number, 1.0))


async def test_a_rollout_from_start_to_promotion_and_back(mesh):
    """Started, watched, judged, promoted, rolled back; gateways hear of the trial; all of it is in the history."""
    control, court, channel = mesh
    stub = rollout_pb2_grpc.RolloutServiceStub(channel)
    started = await stub.StartRollout(start_request())
    assert started.rollout_id == "small-1"
    await weights_become(control, {"v1": 9_900, "v2": 100})
    watch_lanes = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
    async for found in watch_lanes:
        if found.models[0].HasField("trial"):
            break
    trial = found.models[0].trial
    by_version = {lane.members[1].version: lane.lane for lane in found.models[0].lanes}
    assert (trial.rollout_id, trial.stable_lane, trial.canary_lane) == ("small-1", by_version["v1"], by_version["v2"])
    assert (round(trial.shadow_rate, 3), trial.calibration_rate) == (0.2, 0.25)
    watch_lanes.cancel()
    watch = aiter(stub.WatchRollout(rollout_pb2.WatchRolloutRequest(rollout_id="small-1")))
    assert (await anext(watch)).rollout.weight_percent == 1.0
    court.arbiters["small-1"].verdict = Verdict.PROMOTE
    observe(control, 3, 0)
    await weights_become(control, {"v1": 5_000, "v2": 5_000})
    observe(control, 3, 3)
    states = [(answer.rollout.state, answer.rollout.weight_percent) async for answer in watch]
    assert states[-1] == (rollout_pb2.ROLLOUT_STATE_PROMOTED, 100.0)
    ended = (await stub.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id="small-1"))).rollout
    assert (ended.exposed_request_count, ended.exposed_session_count, ended.from_version) == (6, 6, "v1")
    assert [verdict.metric for verdict in ended.verdicts] == ["errors"]
    await weights_become(control, {"v1": 1, "v2": 9_999})
    back = await stub.Rollback(rollout_pb2.RollbackRequest(model="small", actor="bob", reason="smells"))
    assert (back.version, back.lane) == ("v1", trial.stable_lane)
    await weights_become(control, {"v1": 9_999, "v2": 1})
    acts = (await stub.ListActs(rollout_pb2.ListActsRequest())).acts
    assert [(act.actor, act.what) for act in acts] == [
        ("bob", "rollback"),
        ("judge", "promote"),
        ("judge", "step"),
        ("judge", "step"),
        ("ann", "start"),
    ]
    listed = await stub.ListRollouts(rollout_pb2.ListRolloutsRequest(model="small"))
    assert [one.rollout_id for one in listed.rollouts] == ["small-1"]


async def test_people_act_and_are_told_what_came_of_it(mesh):
    """Pause, resume, abort; twice has no effect and says so."""
    control, _, channel = mesh
    stub = rollout_pb2_grpc.RolloutServiceStub(channel)
    await stub.StartRollout(start_request())
    await weights_become(control, {"v1": 9_900, "v2": 100})

    async def act(action, reason="") -> rollout_pb2.ActOnRolloutResponse:
        return await stub.ActOnRollout(
            rollout_pb2.ActOnRolloutRequest(rollout_id="small-1", action=action, reason=reason, actor="ann")
        )

    paused = await act(rollout_pb2.ROLLOUT_ACTION_PAUSE, "lunch")
    assert (paused.effective, paused.rollout.reason) == (True, "paused: ann: lunch")
    assert (await act(rollout_pb2.ROLLOUT_ACTION_RESUME)).effective
    aborted = await act(rollout_pb2.ROLLOUT_ACTION_ABORT, "no")
    assert (
        aborted.rollout.reason == "Aborted at 1 %: by ann: no. Nobody is known to have seen it. All traffic is on v1."
    )
    for action in (rollout_pb2.ROLLOUT_ACTION_ABORT, rollout_pb2.ROLLOUT_ACTION_PROMOTE):
        again = await act(action)
        assert (again.effective, again.rollout.state) == (False, rollout_pb2.ROLLOUT_STATE_ABORTED)
        assert again.rollout.reason.startswith("it has ended: Aborted at 1 %")
    await weights_become(control, {"v1": 10_000, "v2": 0})


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"intent": 0}, Reason.ROLLOUT_INVALID, "intent: not set: accepted: one of same, better, experiment"),
        ({"service": 0}, Reason.ROLLOUT_INVALID, "service: not set: accepted: one of gateway"),
        ({"to_version": "v9"}, Reason.ROLLOUT_INVALID, "to_version: nobody announces worker v9 of small"),
        (
            {"steps": [rollout_pb2.RolloutStep(weight_percent=101.0)]},
            Reason.ROLLOUT_INVALID,
            "steps: 101 %: accepted: 0.01 % to 100 %",
        ),
        (
            {"steps": [rollout_pb2.RolloutStep(weight_percent=w) for w in (5.0, 1.0)]},
            Reason.ROLLOUT_INVALID,
            "steps: step 2: 1 % after 5 %: accepted: each above the one before",
        ),
        ({"tolerances": {"speed": 1.0}}, Reason.ROLLOUT_INVALID, "tolerances.speed: no such metric: accepted: "),
        ({"actor": "a\nb"}, Reason.ROLLOUT_INVALID, "actor: 'a\\nb': accepted: at most 500 printable characters"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_reason(mesh, changes, reason, said):
    """Key, value, what is accepted."""
    _, _, channel = mesh
    stub = rollout_pb2_grpc.RolloutServiceStub(channel)
    with pytest.raises(MeshError) as refused:
        await stub.StartRollout(start_request(**changes))
    assert refused.value.reason is reason
    assert refused.value.message.startswith(said)


async def test_other_refusals_have_reasons_of_their_own(mesh):
    """No such rollout, a second one, frozen, gone."""
    _, _, channel = mesh
    stub = rollout_pb2_grpc.RolloutServiceStub(channel)

    async def refusal(call) -> tuple[Reason, str]:
        with pytest.raises(MeshError) as refused:
            await call
        return refused.value.reason, refused.value.message

    reason, _ = await refusal(stub.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id="x")))
    assert reason is Reason.NOT_FOUND
    reason, said = await refusal(stub.Rollback(rollout_pb2.RollbackRequest(model="small", to_version="v9")))
    assert (reason, "shows worker v9 ready: serin.yaml declares it" in said) == (Reason.VERSION_GONE, True)
    await stub.StartRollout(start_request())
    reason, said = await refusal(stub.StartRollout(start_request()))
    assert (reason, said.startswith("small-1 of small is ")) == (Reason.ROLLOUT_CONFLICT, True)
    assert (await stub.Freeze(rollout_pb2.FreezeRequest(frozen=True, reason="xmas", actor="ann"))).changed
    request = rollout_pb2.ActOnRolloutRequest(rollout_id="small-1", action=rollout_pb2.ROLLOUT_ACTION_PROMOTE)
    reason, _ = await refusal(stub.ActOnRollout(request))
    assert reason is Reason.ROLLOUTS_FROZEN


async def test_operators_act_everybody_of_the_mesh_looks(tls_dirs):
    """By certificate; whoever acts is written down with it."""
    control = Control(court=ScriptedCourt())
    await control.start()
    settings = ServiceSettings(tls_dir=tls_dirs("control"), drain_grace_s=1, drain_notice_s=0)
    async with running(control.register, "control", settings=settings, callers=CALLERS) as server:
        loop = asyncio.create_task(control.run())

        def channel_of(service: str):
            return connect(server.address, ServiceSettings(tls_dir=tls_dirs(service)), service="control")

        async with channel_of("worker") as worker, channel_of("operator") as operator:
            looks, acts = rollout_pb2_grpc.RolloutServiceStub(worker), rollout_pb2_grpc.RolloutServiceStub(operator)
            for call in (
                looks.StartRollout(start_request()),
                looks.ActOnRollout(rollout_pb2.ActOnRolloutRequest(rollout_id="x")),
                looks.Rollback(rollout_pb2.RollbackRequest(model="small")),
                looks.Freeze(rollout_pb2.FreezeRequest(frozen=True)),
            ):
                with pytest.raises(MeshError) as refused:
                    await call
                assert refused.value.reason is Reason.IDENTITY_REFUSED
            assert (await acts.Freeze(rollout_pb2.FreezeRequest(frozen=True, actor="ann"))).changed
            (act,) = (await looks.ListActs(rollout_pb2.ListActsRequest())).acts
            assert (act.actor, act.identity, act.what) == ("ann", "operator", "freeze")
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
