"""Compiled kernels: who builds them, where they are kept, and what serves where they cannot be."""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serin_worker.native.library import FolderUnusable, KernelUnavailable, build, is_built, kernels, stop_building


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """One that is quick, by its path."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        """#!/bin/sh
set -e
[ "$1" = --version ] && exec cat "$0.version"
while [ $# -gt 1 ]; do [ "$1" = -o ] && cp "$0.makes" "$2"; shift; done
"""
    )
    (tmp_path / "compiler.version").write_text("1")
    (tmp_path / "compiler.makes").write_text("made\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return compiler


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    """A machine without a compiler gets a clear answer, which selects the torch twin."""
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.raises(KernelUnavailable, match="no-such-compiler does not run"):
        build(tmp_path)


def test_a_broken_build_leaves_nothing_behind(tmp_path, monkeypatch):
    """A compiler that fails is reported with its own words, and the next start tries again."""
    fake = tmp_path / "cxx"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such flag" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(KernelUnavailable, match="no such flag"):
        build(tmp_path / "kernels")
    assert list((tmp_path / "kernels").iterdir()) == []


def test_kernels_are_built_once_by_whoever_comes_first(tmp_path, monkeypatch):
    """Of threads or processes that need them at the same time the others wait, and take what was built."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"""#!/bin/sh
case "$*" in
  --version) echo 1; exit;;
  *-shared*) echo linked >> {tmp_path}/links; sleep 0.3;;
esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done
"""
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with ThreadPoolExecutor(4) as at_once:
        built = list(at_once.map(build, [tmp_path / "kernels"] * 4))
    assert {path.read_text() for path in built} == {"made\n"}
    assert (tmp_path / "links").read_text() == "linked\n"


@pytest.mark.parametrize("left", [b"", b"ma", b"mode\n"])
def test_a_damaged_library_is_built_anew(left, tmp_path, compiler):
    """Truncated to nothing, truncated, or of other bytes: it would end each start with SIGBUS, or never load."""
    folder = tmp_path / "kernels"
    (folder / "tmp_of_a_killed_build").mkdir(parents=True)
    assert not is_built(folder)
    library = build(folder)
    assert list(folder.iterdir()) == [library]
    assert is_built(folder)
    library.write_bytes(left)
    assert not is_built(folder)
    assert build(folder).read_text() == "made\n"
    assert list(folder.iterdir()) == [library]


def test_what_was_built_serves_without_its_compiler(tmp_path, compiler, caplog):
    """As in an image that was built on a machine with one; where there is one, its own are built, unless it fails."""
    folder = tmp_path / "kernels"
    first = build(folder)
    (tmp_path / "compiler.version").write_text("2")
    second = build(folder)
    assert first != second
    os.utime(first, (1, 1))
    assert caplog.text == ""
    (tmp_path / "compiler.version").write_text("3")
    (tmp_path / "compiler.makes").unlink()
    assert not is_built(folder)
    assert build(folder) == second
    assert "another compiler built before: " in caplog.text
    assert "compiler.makes" in caplog.text
    compiler.unlink()
    assert is_built(folder)
    assert build(folder) == second
    assert "compiler does not run" in caplog.text
    second.write_bytes(b"")
    assert build(folder) == first


def test_what_was_built_serves_where_its_successor_cannot_be_kept(tmp_path, compiler, as_plain_user):
    """Half a minute of each start would go to kernels that are as good: what is found and what serves is one rule."""
    folder = tmp_path / "kernels"
    first = build(folder)
    (tmp_path / "compiler.version").write_text("2")
    assert not is_built(folder)
    folder.chmod(0o555)
    assert as_plain_user(lambda: (is_built(folder), build(folder))) == (True, first)
    folder.chmod(0o755)
    assert build(folder) != first


FOLDERS = {
    "closed": (0o000, 0o755, "cannot look into"),
    "not to be listed": (0o755, 0o311, "cannot build in"),
    "not to be written": (0o755, 0o555, "cannot build in"),
    "of a group": (0o755, 0o775, "others than this user may write to"),
    "of everybody": (0o755, 0o777, "others than this user may write to"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_where_nothing_can_be_kept_a_process_builds_for_itself(
    name, tmp_path, compiler, as_plain_user, caplog, monkeypatch
):
    """It says so once, with the folder's name, and leaves nothing behind; torch alone would be many times slower."""
    linker = shutil.which("cc") or pytest.skip("no linker")
    subprocess.run([linker, "-shared", "-x", "c", os.devnull, "-o", f"{compiler}.makes"], check=True)
    around, within, why = FOLDERS[name]
    folder = tmp_path / "cache" / "serin" / "kernels"
    folder.mkdir(parents=True)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder.chmod(within)
    folder.parent.chmod(around)
    try:
        assert not as_plain_user(lambda: is_built(folder))
        with pytest.raises(FolderUnusable, match=f"{why} {folder}"):
            as_plain_user(lambda: build(folder))
        assert Path(as_plain_user(kernels.__wrapped__)._name).is_relative_to(temporary)
    finally:
        folder.parent.chmod(0o755)
        folder.chmod(0o755)
    assert caplog.text.count("compiled for this process alone") == 1
    assert f"make {folder} a folder that" in caplog.text
    assert list(temporary.iterdir()) == list(folder.iterdir()) == []


def test_what_others_may_write_is_not_loaded(tmp_path, compiler):
    """Neither a file nor a folder of files: whoever can write there would run code in this process."""
    folder = tmp_path / "kernels"
    (tmp_path / "compiler.makes").chmod(0o775)
    umask = os.umask(0o002)
    try:
        library = build(folder)
    finally:
        os.umask(umask)
    assert is_built(folder)
    library.chmod(0o775)
    assert not is_built(folder)
    assert build(folder) == library
    assert is_built(folder)
    folder.chmod(0o777)
    assert not is_built(folder)
    with pytest.raises(FolderUnusable):
        build(folder)
    folder.chmod(0o755)
    assert is_built(folder)
    if os.geteuid() == 0:  # who alone can give a folder away
        os.chown(folder, 65534, -1)
        assert not is_built(folder)


@pytest.fixture
def alive(tmp_path, compiler):
    """A pipe that compilers hold open, and what they have started, for as long as they run: 20 seconds."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] || (echo begun; sleep 20; echo left alone) > {alive}\n')
    return alive


def test_a_build_can_be_stopped(tmp_path, alive):
    """A start that is broken off does not wait for it; where the folder can be used it is not begun in another one."""
    with ThreadPoolExecutor(1) as thread:
        building = thread.submit(build, tmp_path / "kernels")
        with alive.open() as writers:
            assert writers.readline() == "begun\n"
            stop_building()
            assert "left alone" not in writers.read()
        with pytest.raises(KernelUnavailable) as raised:
            building.result()
    assert not isinstance(raised.value, FolderUnusable)
    assert list((tmp_path / "kernels").iterdir()) == []


def test_compilers_end_with_the_process_that_started_them(tmp_path, alive):
    """Also what they have started themselves, which no signal to them reaches, and also if that process is killed."""
    script = (
        f"from pathlib import Path; from serin_worker.native import library; library.build(Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process, alive.open() as writers:
        assert writers.readline() == "begun\n"
        process.kill()
        assert "left alone" not in writers.read()  # which ends when none of them is left
