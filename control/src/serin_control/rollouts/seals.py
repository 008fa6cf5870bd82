"""With which files the versions of a model stand: a version never changes, so what was accepted is held to them.

A version is accepted when a rollout promotes it, with the files that were judged, and when it is first seen with
traffic that no rollout gave it. From then on whoever announces other files under its name is none of it, whatever
becomes of its traffic. Values and their changes; knows nothing about leases or stores.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from serin_control.instance import LANE_SERVICES, Instance, Service
from serin_control.lanes import Versions
from serin_control.plan import ModelPlan

MAX_SEALS = 64
"""So many versions of a model are remembered beside those with traffic, the newest."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A version of a service and its files.

    Attributes:
        artifact: digest of the files that it was accepted with.
        foreign: digest of others that were announced last, as long as they are; the history has a line of them.
    """

    service: Service
    version: str
    artifact: str
    foreign: str = ""

    @property
    def pair(self) -> tuple[Service, str]:
        """What is sealed."""
        return self.service, self.version


@dataclass(frozen=True, slots=True)
class Seals:
    """The versions of a model that were accepted, oldest first."""

    model: str
    seals: tuple[Seal, ...] = ()

    @property
    def clusters(self) -> Mapping[str, str]:
        """Digest of the files by cluster: ``worker.small@v1``."""
        return {f"{seal.service}.{self.model}@{seal.version}": seal.artifact for seal in self.seals}

    def accepted(self, artifacts: Mapping[Service, str], versions: Versions) -> "Seals":
        """These versions stand with these files from now on, whatever was known; those without any as before."""
        new = [Seal(*pair, artifacts[pair[0]]) for pair in versions if artifacts.get(pair[0])]
        others = [seal for seal in self.seals if seal.pair not in {one.pair for one in new}]
        return replace(self, seals=(*others, *new))

    def looked_at(self, standing: Collection[tuple[Service, str]], instances: Iterable[Instance]) -> "Seals":
        """What has traffic is accepted as it is seen first; who is announced with other files than that is noted."""
        mine = [one for one in instances if one.registration.model == self.model]
        known = {seal.pair for seal in self.seals}
        able = {_pair(one): one.status.digests.artifact for one in mine if one.takes_calls and not one.suspect}
        new = [Seal(*pair, able[pair]) for pair in sorted(standing) if able.get(pair) and pair not in known]
        foreign = {_pair(one): one.foreign for one in mine if one.foreign}
        noted = [replace(seal, foreign=foreign.get(seal.pair, "")) for seal in (*self.seals, *new)]
        old = [seal for seal in noted if seal.pair not in standing]
        over = {seal.pair for seal in old[: max(0, len(old) - MAX_SEALS)]}
        return replace(self, seals=tuple(seal for seal in noted if seal.pair not in over))

    def foreigners(self, before: "Seals") -> Iterator[Seal]:
        """Versions that are announced with files with which they were not when it was looked before."""
        told = {seal.pair: seal.foreign for seal in before.seals}
        yield from (seal for seal in self.seals if seal.foreign and told.get(seal.pair) != seal.foreign)


def with_traffic(plan: ModelPlan, judged: Collection[Versions | None] = ()) -> set[tuple[Service, str]]:
    """Versions that have traffic by a plan or are kept to have it again, but for sets that are being judged."""
    sets: list[Versions] = [*(share.versions for share in plan.shares if share.weight), *plan.kept]
    return {pair for versions in sets if versions not in judged for pair in versions if pair[0] in LANE_SERVICES}


def _pair(instance: Instance) -> tuple[Service, str]:
    return instance.registration.service, instance.registration.version
