"""The gate of the gRPC door: a stranger's message is never read."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.catalog import Catalog, Policy, ServedModel
from serin_gateway.rpc.gate import KeyGate
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import MemoryHouse, small_lane
from serin_mesh.testing import running

GENERATE = "/serin.inference.v1.InferenceService/Generate"


@pytest.fixture
async def opened():
    """A house, its key, and a channel to its gRPC door."""
    house = MemoryHouse()
    service = InferenceService(house.collaborators)
    async with (
        running(
            lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server),
            "gateway",
            default_deadline_s=30.0,
            gate=KeyGate(house.collaborators),
            max_streams=4,
        ) as host,
        grpc.aio.insecure_channel(host.address) as channel,
    ):
        yield house, await house.key(), channel


async def refusal_of_silence(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> str:
    """The reason that a call is refused for whose message never comes."""

    async def silence():
        await asyncio.Event().wait()
        yield b""

    call = channel.stream_stream(GENERATE)(silence(), metadata=metadata, timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    details = dict(failure.value.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = error_details_pb2.ErrorInfo()
    rich = status_pb2.Status.FromString(details)
    return info.reason if rich.details and rich.details[0].Unpack(info) else failure.value.code().name


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "KEY_MISSING"),
        ([("authorization", "Bearer sk-serin-no")], "KEY_INVALID"),
        ([("authorization", "Basic x"), ("x-api-key", "no")], "KEY_INVALID"),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "PARAMETER_INVALID"),
    ],
)
async def test_a_stranger_is_refused_before_a_message_comes(opened, metadata, reason: str):
    """With the reason that REST gives, and one receipt where there was a request."""
    house, _, channel = opened
    assert await refusal_of_silence(channel, *metadata) == reason
    receipts = [receipt.reason for receipt in house.journal.receipts]
    assert receipts == ([] if reason == "PARAMETER_INVALID" else [reason])


async def test_who_has_a_key_is_listened_to(opened):
    """The message is waited for; with one, the call is answered."""
    _, key, channel = opened
    pair = ("authorization", f"Bearer {key}")
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    listed = await stub.ListModels(inference_pb2.ListModelsRequest(), metadata=[pair], timeout=10)
    assert [model.name for model in listed.models] == ["small"]
    waiting = asyncio.create_task(refusal_of_silence(channel, pair))
    assert waiting not in (await asyncio.wait([waiting], timeout=0.3))[0]
    waiting.cancel()


async def test_keys_that_cannot_be_checked(opened):
    """AUTH_UNAVAILABLE, never a wrong key."""
    house, key, channel = opened
    house.keys.down = True
    assert await refusal_of_silence(channel, ("authorization", f"Bearer {key}")) == "AUTH_UNAVAILABLE"


async def test_strangers_are_let_in_where_policy_says_so(opened):
    """Without a key; a wrong key stays wrong."""
    house, _, channel = opened
    house.catalog.publish(Catalog([ServedModel("small", lanes=[small_lane()])], policy=Policy(allow_anonymous=True)))
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    assert (await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=10)).models
    assert await refusal_of_silence(channel, ("authorization", "Bearer no")) == "KEY_INVALID"


@pytest.mark.parametrize("method", ["Generate", "ListModels"])
async def test_what_is_no_message_is_refused_as_such(opened, method: str):
    """Bytes that are no protobuf: MALFORMED_BODY as over REST, not a crash with the name of an exception."""
    _, key, channel = opened
    call = channel.unary_unary(GENERATE.replace("Generate", method))(
        b"\0", metadata=[("authorization", f"Bearer {key}")], timeout=10
    )
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    details = dict(failure.value.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert (failure.value.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_BODY")
