"""What is believed without being read, and what never is."""

import os

from serin_cli.models.blobs import content_of
from serin_cli.models.intact import Intact
from serin_cli.models.manifest import ModelFile


def test_a_file_that_was_left_alone_is_read_once(tmp_path):
    """What was read is remembered; a file that changes is read again, whatever times it shows."""
    folder, memory = tmp_path / "folder", tmp_path / "memory.json"
    folder.mkdir()
    path = folder / "weights"
    path.write_bytes(b"as it was")
    files = {"weights": ModelFile("weights", 9, content_of(path).digest)}
    intact = Intact(folder, memory, settled_s=-1)
    assert list(intact.damaged(files)) == []
    assert "weights" in memory.read_text()
    # With what is remembered, nothing is read: a wrong digest would be found otherwise.
    assert list(intact.damaged({"weights": ModelFile("weights", 9, "00")})) == []
    before = path.stat()
    path.write_bytes(b"something")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(intact.damaged(files)) == [("weights", "was changed after it was pushed")]


def test_a_file_that_was_touched_just_now_is_not_believed(tmp_path):
    """Within the clock's own step a second change would not be seen, so nothing is remembered."""
    path = tmp_path / "folder" / "weights"
    path.parent.mkdir()
    path.write_bytes(b"new")
    memory = tmp_path / "memory.json"
    assert (
        list(Intact(path.parent, memory).damaged({"weights": ModelFile("weights", 3, content_of(path).digest)})) == []
    )
    assert not memory.exists()
