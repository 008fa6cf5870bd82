"""How a mesh's processes are: who they are, how much memory they hold, which series their metrics have."""

from dataclasses import dataclass
from pathlib import Path

from harness.clients import plain_http
from harness.instances import await_instances
from harness.running_mesh import RunningMesh
from prometheus_client.parser import text_string_to_metric_families

Series = frozenset[tuple[str, tuple[tuple[str, str], ...]]]


@dataclass(frozen=True)
class Vitals:
    """All of a mesh at one moment.

    Attributes:
        pids: by name of the process.
        resident_bytes, peak_bytes: memory by name; the most that was ever held.
        series: names and labels of all metrics.
    """

    pids: dict[str, int]
    resident_bytes: dict[str, int]
    peak_bytes: dict[str, int]
    series: Series

    @classmethod
    async def of(cls, mesh: RunningMesh, viewer_key: str) -> "Vitals":
        """Take them now."""
        pids = {name: member.pid for name, member in mesh.members().items()}
        memory = {name: _memory(pid) for name, pid in pids.items()}
        resident = {name: one["VmRSS"] for name, one in memory.items()}
        peaks = {name: one["VmHWM"] for name, one in memory.items()}
        return cls(pids, resident, peaks, await _series(mesh, viewer_key))


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in ("VmRSS", "VmHWM")}


async def _series(mesh: RunningMesh, key: str) -> Series:
    found = set()
    async with plain_http(timeout=30, headers={"authorization": f"Bearer {key}"}) as client:
        for instance in await await_instances(mesh, bool):
            response = await client.get(f"http://{instance.registration.http_endpoint}/metrics")
            response.raise_for_status()
            for family in text_string_to_metric_families(response.text):
                for sample in family.samples:
                    found.add((sample.name, tuple(sorted(sample.labels.items()))))
    return frozenset(found)
