"""The onion around every served call. Each layer is one file and wraps the whole call, unary or streaming.

Messages are not wrapped: a stream of a million messages passes the layers once.
"""

from serin_mesh.interceptors.onion import Handle, Layer, Onion
from serin_mesh.interceptors.rpc import Rpc

__all__ = ["Handle", "Layer", "Onion", "Rpc"]
