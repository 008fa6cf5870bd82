"""What was refused is let go at once: a request of megabytes must not wait for a collection of garbage.

The collector counts objects, not the megabytes that a few of them hold.
"""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import grpc
import pytest
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.pipeline import Request
from serin_gateway.rest import door
from serin_gateway.rpc import gate, service
from serin_gateway.testing import MemoryHouse
from serin_mesh.testing import running


@pytest.fixture
def made(monkeypatch) -> Iterator[list[weakref.ref]]:
    """Every request that a door makes from now on; nobody collects garbage meanwhile."""
    requests: list[weakref.ref] = []

    class Watched(Request):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            requests.append(weakref.ref(self))

    for module in (door, gate, service):
        monkeypatch.setattr(module, "Request", Watched)
    gc.collect()
    gc.disable()
    yield requests
    gc.enable()


async def all_gone(made: list[weakref.ref]) -> None:
    """Wait until no request is alive."""
    while not all(one() is None for one in made):  # noqa: ASYNC110 - nothing tells of an object's end
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"n": 0}, 400),
        ({"stop": [1] * 1000}, 400),
        ({"nothing": 1}, 400),
        ({"model": "nothing"}, 404),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, 400),
        ({"guided_regex": "bad"}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_over_rest(front, made: list[weakref.ref], body: dict, status: int):
    """Before and behind admission."""
    assert (await front.chat(**body)).status_code == status
    assert made
    await all_gone(made)


@pytest.mark.parametrize(
    ("fields", "key", "code"),
    [
        ({"stop_strings": [""]}, None, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model": "nothing"}, None, grpc.StatusCode.NOT_FOUND),
        ({"prompt": "x" * 3000}, None, grpc.StatusCode.INVALID_ARGUMENT),
        ({}, "no", grpc.StatusCode.UNAUTHENTICATED),
    ],
    ids=["stop", "model", "long", "key"],
)
async def test_over_grpc(made: list[weakref.ref], fields: dict, key: str | None, code: grpc.StatusCode):
    """The same; the message goes with the request."""
    house = MemoryHouse()
    served = service.InferenceService(house.collaborators)
    async with (
        running(
            lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(served, server),
            "gateway",
            default_deadline_s=30.0,
            gate=gate.KeyGate(house.collaborators),
        ) as host,
        grpc.aio.insecure_channel(host.address) as channel,
    ):
        shown = [("authorization", f"Bearer {key or await house.key()}")]
        asked = inference_pb2.GenerateRequest(**({"model": "small", "prompt": "hi"} | fields))
        call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(asked, metadata=shown, timeout=10)
        assert await call.code() is code
        assert made
        await all_gone(made)
