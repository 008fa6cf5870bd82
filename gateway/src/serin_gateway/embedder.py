"""The seam to workers that compute vectors: token ids in, vectors out.

Knows nothing about gRPC or text; `upstream/` carries it out over the mesh, `testing` in memory.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope

Vector: TypeAlias = "array[float]"
"""Components as 32-bit floats."""


class Embedders(Protocol):
    """Calls workers."""

    async def embed(
        self,
        scope: CallScope,
        worker: Worker,
        inputs: Sequence[Sequence[int]],
        num_dimensions: int,
        may_move: Callable[[], bool],
    ) -> Sequence[Vector]:
        """One vector for each input, in order.

        Args:
            scope: of the request.
            worker: who computes them.
            inputs: ids of each, special ones included.
            num_dimensions: length of the vectors; 0: the model's own.
            may_move: whether, when the worker has fallen silent, the inputs could go elsewhere now.

        Raises:
            MeshError: it did not; a parameter ``runs[i]`` is the input with this index.
        """
