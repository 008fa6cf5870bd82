"""Versions beside the declared ones: kept in a file, changed by several commands at once, told to whoever follows."""

import asyncio
import multiprocessing
from pathlib import Path

import pytest
from serin_cli.errors import StartRefused
from serin_cli.local.additions import Addition, Additions, AdditionsFile, Which
from serin_cli.local.follow import follow_additions

SPAWN = multiprocessing.get_context("spawn")
V2 = Which("worker", "small", "v2")


@pytest.fixture
def file(tmp_path):
    """A file that is not there yet."""
    return AdditionsFile(tmp_path / "added.json")


def test_what_was_added_lasts_until_it_is_taken_away(file):
    """Everything that was said is read back; without a file there is nothing."""
    assert file.read() == Additions()
    addition = Addition(V2, "registry:small:v2", 3, "/build", {"precision": "bfloat16", "threads": 2})
    file.change(lambda kept: kept.with_added(addition).withholding(Which("worker", "small", "v1"), True))
    kept = file.read()
    assert kept == Additions((addition,), frozenset([Which("worker", "small", "v1")]))
    assert kept.find(V2) == addition
    assert file.change(lambda kept: kept.without(V2).withholding(Which("worker", "small", "v1"), False)) == Additions()


def test_a_version_is_written_for_a_shell():
    """A command that is shown may be copied whatever the version is called."""
    assert V2.arguments == "worker --model small --version v2"
    assert Which("gateway", "", "v2;drop").arguments == "gateway --version 'v2;drop'"


def test_a_damaged_file_says_what_to_do(tmp_path, file):
    """A file that cannot be used is named."""
    (tmp_path / "added.json").write_text('{"added": [{}], "withheld": []}')
    with pytest.raises(StartRefused, match=r"added.json: cannot be used .*remove it"):
        file.read()


def test_changes_at_the_same_time_all_count(file, tmp_path):
    """Commands that add at the same time lose nothing of each other."""
    with SPAWN.Pool(4) as pool:
        pool.starmap(_add, [(str(tmp_path / "added.json"), index) for index in range(16)])
    assert {addition.which.version for addition in file.read().added} == {f"v{index}" for index in range(16)}


async def test_a_change_is_told(file):
    """Whoever follows the file hears of each change of another process, and not of what it knew."""
    told = asyncio.Event()
    file.change(lambda kept: kept.with_added(Addition(V2)))
    following = asyncio.create_task(follow_additions(file, file.stamp(), told.set))
    file.change(lambda kept: kept)
    assert not told.is_set()
    file.change(lambda kept: kept.without(V2))
    await told.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def _add(path: str, index: int) -> None:
    AdditionsFile(Path(path)).change(lambda kept: kept.with_added(Addition(Which("worker", "small", f"v{index}"))))
