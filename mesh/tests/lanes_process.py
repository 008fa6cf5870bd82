"""A control plane as a process, for tests: publishes lanes of one revision.

python lanes_process.py PORT REVISION
"""

import asyncio
import sys

from serin.control.v1 import lane_pb2
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, running


async def main(port: int, revision: int) -> None:
    """Serve until killed; says so once it does."""
    twin = ControlTwin()
    await twin.publish(lane_pb2.WatchLanesResponse(revision=revision))
    async with running(twin.register, "control", settings=ServiceSettings(port=port)):
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
