"""What gateways report: checked, each batch once, from gateways only."""

import pytest
from control_intake import IntakeLog
from google.protobuf import timestamp_pb2
from serin.control.v1 import observation_pb2, observation_pb2_grpc
from serin_control.assembly import CALLERS, Control
from serin_control.judge.observation import Beginning, Feedback, Observation, Recall, ShadowScore
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

BEGUN = observation_pb2.AttemptBegun(model="small", lane="aa", session=5)


def observed(**fields) -> observation_pb2.Observation:
    """An attempt that ended well."""
    return observation_pb2.Observation(
        **{"request_id": "req-1", "model": "small", "lane": "aa", "session": 2**64 - 1, "reason": "ok", **fields}
    )


def scored(**fields) -> observation_pb2.ShadowScore:
    """A text that was scored."""
    return observation_pb2.ShadowScore(
        **{
            "model": "small",
            "session": 5,
            "stable_lane": "aa",
            "canary_lane": "bb",
            "token_count": 7,
            "stable_logprob": -1.0,
            "canary_logprob": -1.5,
            "agreement": 0.5,
            **fields,
        }
    )


def said(**fields) -> observation_pb2.Feedback:
    """What a caller thought."""
    return observation_pb2.Feedback(
        **{"request_id": "req-1", "model": "small", "lane": "aa", "session": 5, "score": 0.5, **fields}
    )


def batch(number: int = 1, **fields) -> observation_pb2.ReportObservationsRequest:
    """A batch."""
    return observation_pb2.ReportObservationsRequest(**{"gateway": "g", "batch": number, "epoch": 1, **fields})


@pytest.fixture
async def reported():
    """A control plane whose intake is a log, and a caller of it."""
    log = IntakeLog()
    control = Control(intake=log)
    async with (
        running(control.register, "control") as host,
        connect(host.address, ServiceSettings(), service="control") as channel,
    ):
        yield observation_pb2_grpc.ObservationServiceStub(channel), log, control


async def test_everything_reaches_the_intake_as_it_was_reported(reported):
    """By model; what is absent stays unknown."""
    stub, log, control = reported
    whole = observed(
        finished_at=timestamp_pb2.Timestamp(seconds=10, nanos=500_000_000),
        first_token_seconds=0.5,
        seconds_per_token=0.25,
        uncached_token_count=6,
        cached_token_count=4,
        worker_load=3,
        answer_token_count=9,
        finish_reasons={"stop": 1},
        resume_count=2,
        worker="w1",
        schema_valid=True,
        refused=False,
        recall=observation_pb2.RECALL_OUTCOME_FAILED,
        recall_seconds=0.125,
        begun_reported=True,
    )
    seen = [whole, observed(model="other")]
    await stub.ReportObservations(
        batch(begun=[BEGUN], observations=seen, shadow_scores=[scored()], feedback=[said()], dropped_count=3)
    )
    assert log.heard == [
        (
            "small",
            Observation(
                "req-1",
                "aa",
                2**64 - 1,
                10.5,
                "ok",
                0.5,
                0.25,
                6,
                4,
                3,
                9,
                {"stop": 1},
                2,
                "w1",
                True,
                False,
                Recall.FAILED,
                0.125,
                True,
            ),
        ),
        ("other", Observation("req-1", "aa", 2**64 - 1, 0.0)),
        ("small", ShadowScore(5, "aa", "bb", 7, -1.0, -1.5, 0.5)),
        ("small", Feedback("req-1", "aa", 5, 0.5)),
    ]
    assert log.begun == [("small", Beginning("aa", 5))]
    assert (control.observations.num_observations, control.observations.num_dropped) == (2, 3)


async def test_a_batch_counts_once(reported):
    """Sent again, because its answer was lost: nothing happens, and nothing is wrong."""
    stub, log, _ = reported
    for number in (1, 1, 2):
        await stub.ReportObservations(batch(number, begun=[BEGUN], observations=[observed()]))
    await stub.ReportObservations(batch(1, epoch=2, observations=[observed()]))
    assert (len(log.heard), len(log.begun)) == (3, 2)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (batch(gateway=""), "gateway"),
        (batch(begun=[observation_pb2.AttemptBegun(model="small")]), "begun.lane"),
        (batch(begun=[BEGUN] * 4097), "begun"),
        (batch(gateway="a b"), "gateway"),
        (batch(0), "batch"),
        (batch(observations=[observed()] * 4097), "observations"),
        (batch(shadow_scores=[scored()] * 1025), "shadow_scores"),
        (batch(feedback=[said()] * 1025), "feedback"),
        (batch(observations=[observed(), observed(model="")]), "observations.model"),
        (batch(observations=[observed(lane="a/b")]), "observations.lane"),
        (batch(observations=[observed(reason="")]), "observations.reason"),
        (batch(observations=[observed(reason="it broke")]), "observations.reason"),
        (batch(observations=[observed(first_token_seconds=float("nan"))]), "observations.first_token_seconds"),
        (batch(observations=[observed(seconds_per_token=-1)]), "observations.seconds_per_token"),
        (batch(observations=[observed(finish_reasons={"boredom": 1})]), "observations.finish_reasons"),
        (batch(observations=[observed(recall_seconds=float("nan"))]), "observations.recall_seconds"),
        (batch(shadow_scores=[scored(canary_lane="")]), "shadow_scores.lane"),
        (batch(shadow_scores=[scored(token_count=0)]), "shadow_scores.token_count"),
        (batch(shadow_scores=[scored(stable_logprob=float("-inf"))]), "shadow_scores.stable_logprob"),
        (batch(shadow_scores=[scored(canary_logprob=1.0)]), "shadow_scores.canary_logprob"),
        (batch(shadow_scores=[scored(agreement=1.5)]), "shadow_scores.agreement"),
        (batch(feedback=[said(score=float("nan"))]), "feedback.score"),
        (batch(feedback=[said(lane="")]), "feedback.lane"),
    ],
)
async def test_a_batch_that_cannot_be_true_is_refused_whole(reported, request_, field):
    """PARAMETER_INVALID with the field; nothing of it is heard, and a better one under its number is taken."""
    stub, log, _ = reported
    with pytest.raises(MeshError) as refused:
        await stub.ReportObservations(request_)
    assert (refused.value.reason, refused.value.metadata["parameter"]) == (Reason.PARAMETER_INVALID, field)
    assert log.heard == []
    await stub.ReportObservations(batch(observations=[observed()]))
    assert len(log.heard) == 1


async def test_only_gateways_report(tls_dirs):
    """A worker's certificate is refused."""
    control = Control()
    settings = ServiceSettings(tls_dir=tls_dirs("control"), drain_grace_s=1, drain_notice_s=0)
    async with running(control.register, "control", settings=settings, callers=CALLERS) as server:
        for service, allowed in (("gateway", True), ("worker", False)):
            mine = ServiceSettings(tls_dir=tls_dirs(service))
            async with connect(server.address, mine, service="control") as channel:
                call = observation_pb2_grpc.ObservationServiceStub(channel).ReportObservations(batch())
                if allowed:
                    await call
                    continue
                with pytest.raises(MeshError) as refused:
                    await call
                assert refused.value.reason is Reason.IDENTITY_REFUSED
