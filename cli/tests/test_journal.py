"""Logs of processes: bounded on disk, and the reason a process gave for dying."""

import pytest
from serin_cli.local.journal import NUM_KEPT, Journal


def test_rotation_is_bounded(tmp_path):
    """However much is written, the files together stay within the bound, and the newest lines are kept."""
    journal = Journal(tmp_path / "worker.log", rotate_at_bytes=1000)
    for number in range(1000):
        journal.write(b"line %d\n" % number)
    files = list(tmp_path.iterdir())
    assert len(files) == NUM_KEPT + 1
    assert sum(file.stat().st_size for file in files) <= 1000 * (NUM_KEPT + 1)
    assert (tmp_path / "worker.log").read_text().endswith("line 999\n")


def test_a_full_disk_stops_nothing(tmp_path):
    """Where nothing can be written, writing goes on and the tail is still known."""
    journal = Journal(tmp_path / "missing" / "worker.log")
    journal.write(b"bad setting\n")
    assert journal.complaint() == "bad setting"


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (b"", ""),
        (b"usage is wrong\n", "usage is wrong"),
        (b'Traceback (most recent call last):\n  File "x"\nOSError: no space\n', "OSError: no space"),
        (
            b'Traceback (most recent call last):\n  File "/a.py", line 1, in <module>\n    f()\n'
            b'  File "/b.py", line 23, in f\n    g(\n    ^^\nKeyError: 7\n',
            "KeyError: 7 (/b.py:23)",
        ),
        (b'  File "/a.py", line 1, in f\nwarned\nserin-worker: --port: bad\n', "serin-worker: --port: bad"),
        (b"split ", "split"),
        (b'{"event": "a", "level": "info"}\n', "a"),
        (
            b'{"event": "load.failed", "level": "error", "exception": "T:\\n  f\\nValueError: x"}\n',
            "load.failed: ValueError: x",
        ),
        (
            b'{"event": "a", "level": "error", "exception": "T:\\n  File \\"/c.py\\", line 4, in h\\nOSError: y"}\n',
            "a: OSError: y (/c.py:4)",
        ),
    ],
)
def test_the_reason_for_dying(tmp_path, output, complaint):
    """The last error is found in plain lines, tracebacks and JSON alike."""
    journal = Journal(tmp_path / "worker.log")
    for start in range(0, len(output), 7):
        journal.write(output[start : start + 7])
    assert journal.complaint() == complaint
