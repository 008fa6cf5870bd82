"""Kills what is left of a mesh whose supervisor died.

Run as a script by the supervisor with a pipe on standard input, in a session of its own, with nothing but the standard
library. Lines `+PGID` and `-PGID` say which process groups live. The end of the pipe is the end of the supervisor,
however it died: every group that still lives is killed, grandchildren included. The supervisor's lock on the state
directory is inherited, so the directory is free only when this process is gone too.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Follow the pipe to its end, then kill."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
