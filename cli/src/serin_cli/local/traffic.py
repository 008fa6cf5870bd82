"""Whether a version carries traffic, and how to say so.

Reads the lanes and rollouts that the control plane knows; knows nothing about processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from serin.control.v1 import lane_pb2, registry_pb2, rollout_pb2

from serin_cli.local.additions import Which

WEIGHT_SUM = 10_000  # of a model's lanes
LEAST = 1  # weight of a lane that only lets its sessions end, or is kept for a rollback

_KINDS = {
    "worker": registry_pb2.SERVICE_KIND_WORKER,
    "tokenizer": registry_pb2.SERVICE_KIND_TOKENIZER,
    "cache": registry_pb2.SERVICE_KIND_CACHE,
    "gateway": registry_pb2.SERVICE_KIND_GATEWAY,
}
_UNDER_WAY = (
    rollout_pb2.ROLLOUT_STATE_RUNNING,
    rollout_pb2.ROLLOUT_STATE_WAITING,
    rollout_pb2.ROLLOUT_STATE_PAUSED,
)


@dataclass(frozen=True)
class Traffic:
    """What a version carries.

    Attributes:
        reason: why it should not go, in words that follow its name; empty: nothing is lost with it.
        remedy: what changes that.
        note: what is lost nevertheless; empty: nothing.
    """

    reason: str = ""
    remedy: str = ""
    note: str = ""


def traffic_of(
    which: Which, published: lane_pb2.WatchLanesResponse, rollouts: Iterable[rollout_pb2.Rollout] = ()
) -> Traffic:
    """What a version carries, by the lanes that are published and the rollouts there are."""
    for rollout in rollouts:
        if rollout.state in _UNDER_WAY and _is_side(which, rollout):
            name = rollout.rollout_id
            return Traffic(f"is one side of rollout {name}", f"`serin rollout abort {name}` ends it")
    found = [_of_model(which, model) for model in published.models if which.model in ("", model.name)]
    return next((one for one in found if one.reason), None) or next((one for one in found if one.note), Traffic())


def _of_model(which: Which, model: lane_pb2.Model) -> Traffic:
    lanes = [lane for lane in model.lanes if _is_member(which, lane)]
    weight = sum(lane.weight for lane in lanes)
    if weight > LEAST * len(lanes):
        share = weight / sum(lane.weight for lane in model.lanes)
        return Traffic(f"carries {share:.2%} of the new sessions of {model.name}", "a rollout moves them")
    if weight:
        return Traffic(
            note=f"its lane had {weight} of {WEIGHT_SUM} of the sessions of {model.name}: kept for a rollback"
        )
    return Traffic()


def _is_member(which: Which, lane: lane_pb2.Lane) -> bool:
    return any(m.service == _KINDS.get(which.service) and m.version == which.version for m in lane.members)


def _is_side(which: Which, rollout: rollout_pb2.Rollout) -> bool:
    moved = (rollout.service, *rollout.also)
    versions = (rollout.from_version, rollout.to_version)
    return _KINDS[which.service] in moved and which.version in versions and which.model in ("", rollout.model)
