"""What a failed call carries on the wire, read without any code of the mesh."""

import grpc
from google.rpc import error_details_pb2, status_pb2


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The one `ErrorInfo` of a status; fails where there is none, or more than one."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(details, bytes), f"no details: {error!r}"
    rich = status_pb2.Status.FromString(details)
    assert rich.code == error.code().value[0]
    assert len(rich.details) == 1
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    assert info.domain == "serin"
    return info
