"""Whether a version carries traffic, and how to say so.

Reads the lanes that the control plane publishes; knows nothing about processes.
"""

from dataclasses import dataclass

from serin.control.v1 import lane_pb2, registry_pb2

from serin_cli.local.additions import Which

WEIGHT_SUM = 10_000  # of a model's lanes
LEAST = 1  # weight of a lane that only lets its sessions end, or is kept for a rollback

_KINDS = {"worker": registry_pb2.SERVICE_KIND_WORKER, "tokenizer": registry_pb2.SERVICE_KIND_TOKENIZER}


@dataclass(frozen=True)
class Traffic:
    """What a version carries.

    Attributes:
        reason: why it should not go, in words that follow its name; empty: nothing is lost with it.
        note: what is lost nevertheless; empty: nothing.
    """

    reason: str = ""
    note: str = ""


def traffic_of(which: Which, published: lane_pb2.WatchLanesResponse) -> Traffic:
    """What a worker or tokenizer version carries."""
    model = next((model for model in published.models if model.name == which.model), None)
    if model is None:
        return Traffic()
    lanes = [lane for lane in model.lanes if _is_member(which, lane)]
    if model.HasField("trial"):
        roles = {model.trial.canary_lane: "is judged by", model.trial.stable_lane: "is what is compared in"}
        for lane in lanes:
            if role := roles.get(lane.lane):
                rollout = model.trial.rollout_id
                return Traffic(f"{role} rollout {rollout}; `serin rollout abort {rollout}` ends that")
    weight = sum(lane.weight for lane in lanes)
    if weight > LEAST * len(lanes):
        share = weight / sum(lane.weight for lane in model.lanes)
        return Traffic(f"carries {share:.2%} of the new sessions of {model.name}")
    if weight:
        return Traffic(
            note=f"its lane had {weight} of {WEIGHT_SUM} of the sessions of {model.name}: kept for a rollback"
        )
    return Traffic()


def _is_member(which: Which, lane: lane_pb2.Lane) -> bool:
    return any(m.service == _KINDS.get(which.service) and m.version == which.version for m in lane.members)
