"""A caller in a process of its own (gRPC reads its xDS bootstrap once a process): calls on request, counts answers.

Reads one JSON object a line: {"target", "metadata", "calls"} or {"hold": target} and writes one line for each.
"""

import asyncio
import collections
import json
import sys

from serin_mesh.channels import connect, use_control_plane
from serin_mesh.errors import MeshError
from serin_mesh.settings import ServiceSettings


async def answer(channels: dict, settings: ServiceSettings, request: dict) -> dict:
    """Call as often as asked; how often each answered."""
    target = request["target"]
    if target not in channels:
        channels[target] = connect(f"xds:///{target}", settings, echo_lane=False)
    say = channels[target].unary_unary("/echo.Echo/Say")
    metadata = tuple(map(tuple, request.get("metadata", ())))
    counts, messages = collections.Counter(), collections.Counter()
    for _ in range(request.get("calls", 1)):
        try:
            counts[(await say(b"", timeout=10, metadata=metadata)).decode()] += 1
        except MeshError as error:
            counts[error.reason] += 1
            messages[error.message] += 1
    return {"counts": counts, "messages": messages}


async def main(control: str) -> None:
    """Answer requests until there are no more."""
    settings = ServiceSettings(control=control, instance="test-client")
    use_control_plane(settings)
    channels: dict = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        sys.stdout.write(json.dumps(await answer(channels, settings, json.loads(line))) + "\n")
        sys.stdout.flush()
    for channel in channels.values():
        await channel.close()


asyncio.run(main(sys.argv[1]))
