"""What can be asked for right now: models, their lanes, and the workers of each lane.

A catalog is one immutable view, replaced as a whole when the control plane publishes another. Knows nothing about how
it is published, nor about requests.
"""

import asyncio
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from serin_mesh.errors import MeshError, Reason

from serin_gateway.cascades.cascade import Cascade
from serin_gateway.guards.policy import GuardPolicies
from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.ledger.price import FREE, Price, highest
from serin_gateway.limits.limiter import Limits
from serin_gateway.responses.store import Bounds

RETRY_AFTER_S = "2"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that takes new work; ``cluster`` and ``endpoint`` together pin a call to it."""

    instance: str
    endpoint: str
    cluster: str
    max_sequences: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """One compatible set of versions that answers for a model.

    ``cache_version``: the cache that its recalls go to; empty: the one that all lanes without one of their own share.
    ``version`` is that of its workers, ``price`` what its tokens cost.
    ``num_dimensions``: length of the vectors that its workers compute; 0: they generate tokens.
    ``tokenizers``: endpoints of those that take new calls; the control plane's routes choose among them.
    """

    lane: str
    weight: int
    vocabulary_digest: str
    kv_digest: str
    context_length: int
    block_size: int
    workers: Sequence[Worker] = ()
    tokenizers: Sequence[str] = ()
    cache_version: str = ""
    version: str = ""
    price: Price = FREE
    num_dimensions: int = 0

    @property
    def is_ready(self) -> bool:
        """True when every service it needs is there."""
        return bool(self.workers) and bool(self.tokenizers)


NO_LANE = Lane("", 0, "", "", 0, 0)


@dataclass(frozen=True, slots=True)
class Trial:
    """Two lanes of a model that are compared; the rates are shares from 0 to 1.

    Attributes:
        shadow_rate: of the stable lane's answers, how many are scored on both lanes.
        calibration_rate: of these, how many are scored on the stable lane twice instead.
    """

    stable_lane: str
    canary_lane: str
    shadow_rate: float = 0.0
    calibration_rate: float = 0.0


@dataclass(frozen=True)
class ServedModel:
    """A model by its own name; ``fallbacks`` are models that answer in its place where it cannot take a request.

    What follows from its lanes is found out once: every request asks for it several times.
    """

    name: str
    aliases: Sequence[str] = ()
    lanes: Sequence[Lane] = ()
    default_max_tokens: int = 0
    trial: Trial | None = None
    limits: Limits = field(default_factory=Limits)
    fallbacks: Sequence[str] = ()

    @cached_property
    def highest_price(self) -> Price:
        """What tokens cost at most, on whichever lane."""
        return highest(lane.price for lane in self.lanes)

    @cached_property
    def worker_places(self) -> int:
        """Places of its smallest worker; 0: none has told how many it has."""
        places = [worker.max_sequences for lane in self.lanes for worker in lane.workers]
        return min(filter(None, places), default=0)

    @cached_property
    def context_length(self) -> int:
        """Longest prompt and output together on any ready lane; 0 when none is."""
        return max((lane.context_length for lane in self.lanes if lane.is_ready), default=0)

    @cached_property
    def shortest_context(self) -> int:
        """What every ready lane has room for; 0 when none is ready."""
        return min((lane.context_length for lane in self.lanes if lane.is_ready), default=0)

    @property
    def is_ready(self) -> bool:
        """True when something answers for it now."""
        return any(lane.is_ready for lane in self.lanes)

    @cached_property
    def num_dimensions(self) -> int:
        """Length of the vectors it computes; 0: it generates tokens, or nothing is ready."""
        return max((lane.num_dimensions for lane in self.lanes if lane.is_ready), default=0)

    def choose_lane(self, session: str, avoid: Collection[str] = ()) -> Lane:
        """The lane of a session: by weight, and the same one again while the weights stand.

        Weighted rendezvous hashing (Thaler and Ravishankar 1998, with the logarithmic weights of Schindelhauer and
        Schomaker 2005): as weight moves from one lane to another, sessions move only in that direction, each at most
        once.

        Raises:
            MeshError: NOT_READY, no lane is ready.
        """
        ready = [lane for lane in self.lanes if lane.is_ready and lane.weight > 0 and lane.lane not in avoid]
        if not ready:
            why = "every lane has refused this request" if avoid else "no worker and tokenizer of it are ready yet"
            raise MeshError(
                Reason.NOT_READY, f"model {self.name!r}: {why}; try again shortly", retry_after_s=RETRY_AFTER_S
            )
        return max(ready, key=lambda lane: _rendezvous_score(session, lane))

    def lanes_to_go_on(self, begun: Lane, num_tokens: int) -> list[Lane]:
        """Lanes that can go on with an answer: the one that it began on, then the others that compute the same.

        Workers are enough: its text waits for a tokenizer by itself. What follows on another lane is what would have
        followed on its own: KV digest and vocabulary are the same.

        Args:
            begun: its lane when it began.
            num_tokens: positions that the prompt and all of the answer may take.
        """

        def computes_the_same(lane: Lane) -> bool:
            alike = (lane.kv_digest, lane.vocabulary_digest) == (begun.kv_digest, begun.vocabulary_digest)
            return alike and bool(begun.kv_digest) and lane.context_length >= num_tokens

        own = [lane for lane in self.lanes if lane.lane == begun.lane]
        others = [lane for lane in self.lanes if lane.lane != begun.lane and computes_the_same(lane)]
        others.sort(key=lambda lane: -lane.weight)
        return [lane for lane in (*own, *others) if lane.workers]

    def pinned_lane(self, lane_id: str) -> Lane:
        """A lane by its digest, for callers who may choose.

        Raises:
            MeshError: LANE_GONE, it is not there or not ready.
        """
        for lane in self.lanes:
            if lane.lane == lane_id and lane.is_ready:
                return lane
        raise MeshError(Reason.LANE_GONE, f"model {self.name!r} has no ready lane {lane_id[:64]!r}; ask without a lane")


def _rendezvous_score(session: str, lane: Lane) -> float:
    digest = hashlib.blake2b(f"{lane.lane}\0{session}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return lane.weight / -math.log(uniform)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the mesh's operators declared for all gateways."""

    default_limits: Limits = field(default_factory=Limits)
    max_body_bytes: int = 4_194_304
    allow_anonymous: bool = False
    shadow_scoring: bool = True
    currency: str = ""
    token_issuers: tuple[TokenIssuer, ...] = ()
    guards: GuardPolicies = field(default_factory=GuardPolicies)
    kept_responses: Bounds = Bounds(30 * 86_400.0, 67_108_864)  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class TenantNames:
    """What an organization or a project means by names; ``refuse_fallbacks`` None: as the level above."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    refuse_fallbacks: bool | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """One published view; ``tenants`` by organization and project, the empty one for all of an organization's."""

    models: Sequence[ServedModel] = ()
    policy: Policy = field(default_factory=Policy)
    has_caches: bool = False
    cascades: Mapping[str, Cascade] = field(default_factory=dict)
    tenants: Mapping[tuple[str, str], TenantNames] = field(default_factory=dict)
    names: Mapping[str, ServedModel] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = {alias: model for model in self.models for alias in model.aliases}
        names.update((model.name, model) for model in self.models)
        object.__setattr__(self, "names", names)

    def find(self, name: str) -> ServedModel:
        """The model that a name or a general alias means; what names mean to callers: see `routing.names`.

        Raises:
            MeshError: MODEL_NOT_FOUND.
        """
        model = self.names.get(name)
        if model is None:
            raise model_not_found(name)
        return model


def model_not_found(name: str) -> MeshError:
    """Nothing that a caller may ask has this name."""
    return MeshError(
        Reason.MODEL_NOT_FOUND,
        f"model {name[:80]!r} does not exist; list the models to see which do",
        parameter="model",
    )


class CatalogSource(Protocol):
    """Where the catalog in force comes from."""

    def current(self) -> Catalog:
        """The catalog in force.

        Raises:
            MeshError: NOT_READY, none has been published yet.
        """

    async def changed(self, timeout_s: float) -> bool:
        """Wait for another catalog than the one in force; False: none came in time."""


class MemoryCatalog:
    """A catalog that changes when it is told to: the twin of the control plane."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = catalog
        self._changed = asyncio.Event()

    def publish(self, catalog: Catalog) -> None:
        """Put another catalog in force."""
        self._catalog = catalog
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    def current(self) -> Catalog:
        """The catalog in force."""
        if self._catalog is None:
            raise MeshError(
                Reason.NOT_READY, "the control plane has not published any model yet", retry_after_s=RETRY_AFTER_S
            )
        return self._catalog

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the next :meth:`publish`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True
