"""Becomes another program that dies with the process that started it.

Run as a script by the supervisor, `leash.py PARENT_PID COMMAND…`, with nothing but the standard library: the kernel is
asked (prctl(2), PR_SET_PDEATHSIG) to kill this process when its parent is gone, which stays in force across exec.
A preexec function could ask the same, but runs Python between fork and exec of a process full of gRPC's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, make sure the parent has not died in between, become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
