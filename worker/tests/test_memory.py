"""What a process may still take: the tightest of its control groups and limits, whatever the machine has."""

import resource
import subprocess
import sys

import pytest
import torch
from serin_worker.model import memory
from serin_worker.model.control_groups import left_bytes

CPU = torch.device("cpu")


def write(folder, **files):
    """A control group's files; an underscore stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def groups(tmp_path, lines: str) -> int | None:
    """Bytes left of a process in such groups."""
    of = tmp_path / "cgroup"
    of.write_text(lines)
    return left_bytes(of, tmp_path / "mounted")


@pytest.mark.parametrize(
    ("limits", "left"), [((900, 5000, 8000), 800), ((5000, 900, 8000), 700), (("max", "max", 700), 400)]
)
def test_the_tightest_of_a_group_and_those_above_it(tmp_path, limits, left):
    """Its own, its parent's and the root's, by what each has used."""
    root = tmp_path / "mounted"
    for used, (folder, limit) in enumerate(zip((root / "a" / "b", root / "a", root), limits, strict=True), start=1):
        write(folder, memory_max=limit, memory_current=100 * used)
    assert groups(tmp_path, "0::/a/b\n") == left


def test_version_1(tmp_path):
    """The memory controller's own tree; other controllers' paths say nothing."""
    root = tmp_path / "mounted" / "memory"
    (root / "job").mkdir(parents=True)
    for folder, limit in ((root, 2**63 - 4096), (root / "job", 1000)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text("300\n")
    assert groups(tmp_path, "5:cpu,cpuacct:/elsewhere\n4:memory:/job\n0::/\n") == 700
    assert groups(tmp_path, "5:cpu,cpuacct:/job\n4:memory:/\n") is None


def test_pages_of_files_are_not_used_memory(tmp_path):
    """What was read of the weights is in the group's account, and is given back to whoever needs it."""
    write(tmp_path / "mounted", memory_max=1000, memory_current=900)
    (tmp_path / "mounted" / "memory.stat").write_text("anon 100\ninactive_file 500\nactive_file 200\n")
    assert groups(tmp_path, "0::/not/seen/from/here\n") == 800


def test_no_group(tmp_path):
    """Other systems have none."""
    assert left_bytes(tmp_path / "none", tmp_path / "none") is None


def test_the_limit_of_address_space(monkeypatch):
    """What is mapped already is taken off, and so is what will be mapped."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**50 + 10**9, 2**50 + 10**9))
    assert memory.available_bytes(CPU) == memory.available_bytes(CPU, 10**6) < 2**50  # others are tighter
    monkeypatch.setattr(memory, "_system_bytes", lambda: 2**60)
    monkeypatch.setattr(memory.control_groups, "left_bytes", lambda: None)
    left = memory.available_bytes(CPU)
    assert 0 < left < 2**50 + 10**9
    assert left - memory.available_bytes(CPU, 10**12) == pytest.approx(10**12, rel=0.01)


def test_a_file_that_cannot_be_mapped_is_too_little_memory():
    """By the system's own error, as torch and safetensors pass it on."""
    script = """
import resource, torch
from serin_worker.model.memory import is_out_of_memory
resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
try:
    torch.empty(2**36, dtype=torch.uint8)
except Exception as error:
    assert is_out_of_memory(error), error
import mmap
try:
    mmap.mmap(-1, 2**36)
except OSError as error:
    assert is_out_of_memory(error), error
    raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 7
