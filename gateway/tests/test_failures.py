"""What a worker's failure means: a closed set of causes, and who is not to be given a prompt again."""

import pytest
from serin_gateway import failures
from serin_gateway.catalog import Worker
from serin_gateway.failures import DEATHS, Cause, Failures, cause_of
from serin_mesh.errors import STATUS, MeshError, Reason

WORKERS = [Worker(f"w{n}", f"127.0.0.1:{9000 + n}", "c") for n in range(9)]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed"), Cause.KILLED),
        (MeshError(Reason.UPSTREAM_UNAVAILABLE, "silence", cause="silent"), Cause.SILENT),
        (MeshError(Reason.UPSTREAM_UNAVAILABLE, "odd", cause="no cause of ours"), Cause.KILLED),
        (MeshError(Reason.UPSTREAM_UNAVAILABLE, "Socket closed", cause="unreachable"), Cause.UNREACHABLE),
        (MeshError(Reason.NOT_READY, "no step", cause="stalled"), Cause.STALLED),
        (MeshError(Reason.NOT_READY, "going", cause="draining"), Cause.DRAINING),
        (MeshError(Reason.NOT_READY, "loading"), Cause.REFUSED),
        (MeshError(Reason.QUEUE_FULL, "full"), Cause.REFUSED),
        (MeshError(Reason.KV_MISMATCH, "other"), Cause.REFUSED),
        (MeshError(Reason.CANCELLED, "CANCELLED"), Cause.GIVEN_UP),
    ],
)
def test_each_way_to_let_go_has_a_cause(error: MeshError, cause: Cause):
    """What the worker says itself counts first; a word nobody knows is no new label."""
    assert cause_of(error) is cause


def test_the_requests_own_errors_have_none():
    """NUMERICS_FAILED and every refusal of a parameter end the request, and no worker is blamed."""
    letting_go = {
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.NOT_READY,
        Reason.QUEUE_FULL,
        Reason.CANCELLED,
        Reason.LANE_GONE,
        Reason.VOCABULARY_MISMATCH,
        Reason.KV_MISMATCH,
    }
    for reason in STATUS.keys() - letting_go:
        assert cause_of(MeshError(reason, "x", cause="killed")) is None
    error = MeshError(Reason.NUMERICS_FAILED, "NaN")
    with pytest.raises(MeshError) as raised:
        Failures().add(WORKERS[0], error, has_begun=True)
    assert raised.value is error


def test_what_a_request_may_have_done_is_counted():
    """Killed, silent and stalled workers count towards POISON_REQUEST; one that drains or is full does not."""
    assert {Cause.KILLED, Cause.SILENT, Cause.STALLED} == DEATHS
    found = Failures()
    for worker in WORKERS[:5]:
        found.add(worker, MeshError(Reason.NOT_READY, "going", cause="draining"), has_begun=True)
    found.add(WORKERS[5], MeshError(Reason.NOT_READY, "no step", cause="stalled"), has_begun=True)
    with pytest.raises(MeshError) as raised:
        found.add(WORKERS[6], MeshError(Reason.UPSTREAM_UNAVAILABLE, "x", cause="silent"), has_begun=True)
    assert raised.value.reason is Reason.POISON_REQUEST


def test_who_speaks_again_has_not_died():
    """A worker that was only held up counts no longer; one that stays silent does."""
    silent = {worker.endpoint for worker in WORKERS[:2]}
    found = Failures(is_silent=lambda endpoint: endpoint in silent)
    silence = MeshError(Reason.UPSTREAM_UNAVAILABLE, "x", cause="silent")
    found.add(WORKERS[0], silence, has_begun=True)
    silent.discard(WORKERS[0].endpoint)
    found.add(WORKERS[1], silence, has_begun=True)
    with pytest.raises(MeshError) as raised:
        found.add(WORKERS[2], MeshError(Reason.UPSTREAM_UNAVAILABLE, "closed"), has_begun=True)
    assert raised.value.reason is Reason.POISON_REQUEST


def test_a_worker_is_avoided_for_a_while():
    """Long where it was lost, briefly where it only could not take the prompt."""
    now = [100.0]
    found = Failures(lambda: now[0], is_silent=lambda endpoint: False)
    found.add(WORKERS[0], MeshError(Reason.QUEUE_FULL, "full"), has_begun=False)
    found.add(WORKERS[1], MeshError(Reason.UPSTREAM_UNAVAILABLE, "closed"), has_begun=False)
    assert found.avoided == {WORKERS[0].endpoint, WORKERS[1].endpoint}
    now[0] += failures.BRIEFLY_AVOIDED_S
    assert found.avoided == {WORKERS[1].endpoint}
    now[0] += failures.AVOIDED_S
    assert found.avoided == set()
    found.add(WORKERS[2], MeshError(Reason.UPSTREAM_UNAVAILABLE, "x", cause="silent"), has_begun=True)
    now[0] += failures.BRIEFLY_AVOIDED_S
    assert found.avoided == set()  # while it is silent it gets nothing anyway


def test_a_lane_that_is_not_what_it_was():
    """Before the first token another lane is better; after it, only another worker of the same lane will do."""
    error = MeshError(Reason.KV_MISMATCH, "other weights")
    with pytest.raises(MeshError):
        Failures().add(WORKERS[0], error, has_begun=False)
    found = Failures()
    found.add(WORKERS[0], error, has_begun=True)
    assert found.avoided == {WORKERS[0].endpoint}


def test_a_workers_cancel_is_not_shown_as_the_callers():
    """To the caller it is a mesh that is not ready."""
    found = Failures()
    found.add(WORKERS[0], MeshError(Reason.CANCELLED, "CANCELLED"), has_begun=False)
    assert found.last is not None
    assert found.last.reason is Reason.NOT_READY
