"""What a running mesh writes down for other commands: `mesh.json` in its state directory.

Knows nothing about processes beyond what is written here.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from serin_cli.errors import NoMesh
from serin_cli.state_dir import StateDir, write_private


@dataclass(frozen=True)
class MeshRecord:
    """Where a mesh is reached and which processes it has.

    Attributes:
        pid: process id of the supervisor.
        phase: ``starting``, ``ready`` or ``draining``.
        rest: base of the REST interface, ``http://host:port``.
        grpc, control: ``host:port`` of the gateway's gRPC interface and of the control plane.
        state_redis: address of the state Redis, which may hold a password.
        processes: the rows of the board, as plain values.
        edge: base of the edge, ``https://host:port``; empty: none.
        edge_trust: file with the certificates that a client of the edge trusts.
        edge_mesh: ``host:port`` where the edge takes plain gRPC for inner services; empty: nowhere.
        alarms: what stands wrong, as the control plane says.
    """

    pid: int
    phase: str
    rest: str
    grpc: str
    control: str
    state_redis: str
    processes: list[dict[str, Any]] = field(default_factory=list)
    edge: str = ""
    edge_trust: str = ""
    edge_mesh: str = ""
    alarms: list[str] = field(default_factory=list)

    @property
    def openai_base_url(self) -> str:
        """What the OpenAI SDK calls its base URL."""
        return f"{self.rest}/v1"

    def write(self, state: StateDir) -> None:
        """Replace the record."""
        write_private(state.record, json.dumps(asdict(self), indent=2) + "\n")


def read_record(state: StateDir) -> MeshRecord:
    """The record of the mesh that runs on a state directory.

    Raises:
        NoMesh: none runs there.
    """
    absent = NoMesh(f"no mesh runs on {state.root}; start one with `serin up`, or name another with --state DIR")
    if not state.is_held():
        raise absent
    try:
        stored: dict[str, Any] = json.loads(state.record.read_text(encoding="utf-8"))
        return MeshRecord(**{name: stored[name] for name in MeshRecord.__dataclass_fields__})
    except (OSError, ValueError, KeyError) as error:
        raise absent from error
