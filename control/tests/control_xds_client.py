"""A caller in a process of its own (gRPC reads its xDS bootstrap once a process): calls on request, counts answers.

Reads one JSON object a line and writes one for each: {"target", "metadata", "calls"} calls one after the other;
with "then", another target, each call is followed by one to that in the same conversation, and the second's answers
count; with "hold" the calls are begun together and left open; {"cancel": true} cancels those, and tells how each ended.
"""

import asyncio
import collections
import json
import sys

from serin_mesh.channels import connect, use_control_plane
from serin_mesh.errors import MeshError
from serin_mesh.lane_memory import conversation
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
            counts[(await say(b"", timeout=60, metadata=metadata)).decode()] += 1
        except MeshError as error:
            counts[error.reason] += 1
            messages[error.message] += 1
    return {"counts": counts, "messages": messages}


async def converse(channels: dict, settings: ServiceSettings, request: dict) -> dict:
    """Conversations of two calls, left to `connect()`; how often each answered the second."""
    both = [request["target"], request["then"]]
    for target in both:
        if f"{target} echoed" not in channels:
            channels[f"{target} echoed"] = connect(f"xds:///{target}", settings)
    first, second = (channels[f"{target} echoed"].unary_unary("/echo.Echo/Say") for target in both)
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(request["calls"]):
        with conversation():
            await first(b"", timeout=60)
            counts[(await second(b"", timeout=60)).decode()] += 1
    return {"counts": counts}


def hold(channels: dict, settings: ServiceSettings, request: dict) -> list:
    """Begin calls that are answered only when somebody says so."""
    target = request["target"]
    if target not in channels:
        channels[target] = connect(f"xds:///{target}", settings, echo_lane=False)
    say = channels[target].unary_unary("/echo.Echo/Hold")
    return [say(b"", timeout=60, metadata=tuple(map(tuple, request["metadata"]))) for _ in range(request["calls"])]


async def cancel(held: list) -> dict:
    """Cancel what is held; how each ended."""
    for call in held:
        call.cancel()
    ends: collections.Counter[str] = collections.Counter()
    for end in await asyncio.gather(*held, return_exceptions=True):
        ends[getattr(end, "reason", "CANCELLED")] += 1
    held.clear()
    return {"counts": ends}


async def main(control: str) -> None:
    """Answer requests until there are no more."""
    settings = ServiceSettings(control=control, instance="test-client")
    use_control_plane(settings)
    channels: dict = {}
    held: list = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        if request.get("cancel"):
            said = await cancel(held)
        elif request.get("then"):
            said = await converse(channels, settings, request)
        elif request.get("hold"):
            held += hold(channels, settings, request)
            said = {"counts": {}}
        else:
            said = await answer(channels, settings, request)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
    for channel in channels.values():
        await channel.close()


asyncio.run(main(sys.argv[1]))
