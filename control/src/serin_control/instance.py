"""One process in the mesh: who it is, what it last said, whether it is still heard.

Knows nothing about leases, lanes or the wire.
"""

import enum
from dataclasses import dataclass, field


class Service(enum.StrEnum):
    """Services of the mesh; the value is the name in targets, clusters and certificates."""

    GATEWAY = "gateway"
    TOKENIZER = "tokenizer"
    WORKER = "worker"
    CACHE = "cache"
    CONTROL = "control"


LANE_SERVICES = (Service.TOKENIZER, Service.WORKER)
"""Services that form a lane, in the order of a lane's members. They serve one model; the others serve all."""

MEMBER_SERVICES = (*LANE_SERVICES, Service.CACHE)
"""Services that a lane may name. One that names no cache shares the declared version of it with all others."""


class State(enum.StrEnum):
    """What an instance says it is doing; SUSPECT is said about it, never by it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Formats:
    """The format that an instance writes, from 1 (0: it keeps nothing), and those that it reads."""

    written: int = 0
    read: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """Who an instance is. Nothing of it changes while its lease lasts.

    ``endpoint`` and ``http_endpoint`` are ``host:port``; the latter is empty where there is none. ``model`` is empty
    for services that serve all models. ``formats`` is what it keeps in a store that other versions use too.
    """

    instance: str
    service: Service
    model: str
    version: str
    endpoint: str
    http_endpoint: str = ""
    formats: Formats = field(default_factory=Formats)

    @property
    def target(self) -> str:
        """Name that callers use: ``worker.small``, ``cache``."""
        return f"{self.service}.{self.model}" if self.model else str(self.service)

    @property
    def cluster(self) -> str:
        """Name of all instances that are alike: ``worker.small@v1``."""
        return f"{self.target}@{self.version}"


_OF_A_VERSION = ("artifact", "vocabulary", "kv")


@dataclass(frozen=True, slots=True)
class Digests:
    """What an artifact is, in lowercase hex; empty where a service has no such thing."""

    artifact: str = ""
    vocabulary: str = ""
    kv: str = ""
    numerics_class: str = ""

    def same_artifact(self, other: "Digests") -> bool:
        """Whether both may stand behind one version. The numerics class may differ: it depends on the device."""
        return not self.differences(other)

    def differences(self, other: "Digests") -> tuple[str, ...]:
        """Names of the digests for which the two may not stand behind one version."""
        return tuple(name for name in _OF_A_VERSION if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an instance can bear; 0 where a service has no such thing."""

    num_sequences: int = 0
    num_blocks: int = 0
    block_size: int = 0
    context_length: int = 0
    group_size: int = 1
    num_embedding_dimensions: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What an instance last said about itself."""

    state: State = State.STARTING
    progress: float = 0.0
    activity: str = ""
    digests: Digests = field(default_factory=Digests)
    capacity: Capacity = field(default_factory=Capacity)


@dataclass(frozen=True, slots=True)
class Instance:
    """One process in the mesh.

    Attributes:
        registration: who it is.
        status: what it last said.
        registered_at: when it last registered and was heard, seconds since 1970.
        suspect: its stream broke or went silent; its lease still runs, or it is ``lost``.
        lost: its lease has ended, and it is kept because too much of its cluster was lost together.
        refusal: why what it said last is not believed: it counts as starting; empty: it is believed.
        foreign: digest of files that it announces and its version was not accepted with; empty: it announces none.
    """

    registration: Registration
    status: Status
    registered_at: float
    suspect: bool = False
    lost: bool = False
    refusal: str = ""
    foreign: str = ""

    @property
    def state(self) -> State:
        """What others should take it for."""
        silent = self.suspect and self.status.state is State.READY
        return State.SUSPECT if silent else self.status.state

    @property
    def serves(self) -> bool:
        """Whether it has traffic or may get some: it was ready once and has not withdrawn."""
        return self.status.state in (State.READY, State.DRAINING)

    @property
    def takes_calls(self) -> bool:
        """Whether new calls should reach it."""
        return self.status.state is State.READY and not self.lost
