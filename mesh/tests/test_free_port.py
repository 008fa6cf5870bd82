"""Ports for programs that cannot choose one: nobody is given another's."""

import subprocess
import sys

from serin_mesh.testing import free_port

MANY = "from serin_mesh.testing import free_port; print(*(free_port() for _ in range(400))); input()"


def test_no_two_askers_get_the_same():
    """Of processes that live at the same time."""
    command = [sys.executable, "-c", MANY]
    asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    given = [int(port) for port in asker.stdout.readline().split()]
    given += [free_port() for _ in range(400)]
    asker.communicate("\n")
    assert len(set(given)) == 800
