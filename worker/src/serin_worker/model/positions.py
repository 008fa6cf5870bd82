"""How many positions of a model are served: as many as it was made for, unless its rotation depends on who is beside.

Transformers derives two kinds of rotary frequencies from the largest position of a whole call, where rows of many
sequences are. "dynamic" ones change beyond ``max_position_embeddings``, where no sequence comes. "longrope" ones change
beyond ``original_max_position_embeddings``: a short answer beside a long one would be computed with the long one's
frequencies, and a growing one holds keys made with both. Up to there they are fixed. Knows nothing about how many
positions somebody asks for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEFAULT = 2048
"""Of models that do not say, as those without learned or rotary positions."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions that are served.

    Attributes:
        count: of them.
        limit: why there are not as many as the model was made for; empty: there are.
    """

    count: int
    limit: str = ""


def positions_of(config: Any) -> Positions:
    """What a text model's configuration, as transformers holds it, allows."""
    most = int(getattr(config, "max_position_embeddings", None) or _DEFAULT)
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") == "longrope" and original and original < most:
            cause = f"its rotary positions (longrope) are served up to original_max_position_embeddings, not to {most}"
            return Positions(int(original), cause)
    return Positions(most)


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """Parameters as they are, or by type of layer."""
    if isinstance(parameters, Mapping):
        yield parameters
        yield from (part for part in parameters.values() if isinstance(part, Mapping))
