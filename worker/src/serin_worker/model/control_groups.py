"""How much memory the control groups of this process leave, version 1 or 2 (man 7 cgroups).

Knows nothing about devices.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NO_LIMIT = 2**62
"""Version 1 says so by a number, rounded to pages."""


def left_bytes(of: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the tightest group leaves, of the process's own and all above it; None: no group bounds them.

    Pages of files are not counted as used: the kernel takes them back for whoever needs memory.

    Args:
        of: where the process's groups are listed, a line each: ``hierarchy:controllers:path``.
        mounted: where the hierarchies are mounted.
    """
    left = [
        _left(group, *names)
        for root, path, names in _hierarchies(of, mounted)
        for group in (root, *(root.joinpath(*path[:depth]) for depth in range(1, len(path) + 1)))
    ]
    return min((num_bytes for num_bytes in left if num_bytes is not None), default=None)


def _hierarchies(of: Path, mounted: Path) -> Iterator[tuple[Path, tuple[str, ...], tuple[str, str, tuple[str, ...]]]]:
    """Root, path of the process's group below it, and names of files, of each hierarchy that may bound memory."""
    unified = ("memory.max", "memory.current", ("inactive_file", "active_file"))
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
    try:
        lines = of.read_text().splitlines()
    except OSError:
        lines = []
    paths = {"": "/", "memory": "/"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        paths |= {name: path for name in controllers.split(",") if name in paths}
    for root, name, names in ((mounted, "", unified), (mounted / "memory", "memory", first)):
        yield root, PurePosixPath(paths[name]).parts[1:], names


def _left(group: Path, limit_name: str, used_name: str, file_names: tuple[str, ...]) -> int | None:
    try:
        limit, used = ((group / name).read_text().strip() for name in (limit_name, used_name))
    except OSError:  # a container sees less than the whole tree; what it does not see, it cannot exceed knowingly
        return None
    if not limit.isdigit() or int(limit) >= _NO_LIMIT:
        return None
    return max(int(limit) - int(used) + _file_bytes(group, file_names), 0)


def _file_bytes(group: Path, names: tuple[str, ...]) -> int:
    try:
        fields = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(value) for name, value in fields if name in names)
    except (OSError, ValueError):
        return 0
