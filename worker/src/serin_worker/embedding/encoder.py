"""A loaded model as a function: inputs as ids in, one vector each out.

Inputs of a batch are padded behind their ends and the padding is masked, so that what one becomes does not depend on
the others but for rounding. Knows nothing about queues or requests.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from serin_worker.embedding.pooling import pool, shorten
from serin_worker.embedding.recipe import Recipe
from serin_worker.errors import LogitsNotFinite, ModelRefused
from serin_worker.model.positions import positions_of

LENGTH_MULTIPLE = 8
"""Batches are padded to a multiple of this: CPU kernels are built anew for every shape, and kept."""
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


class Encoder:
    """Computes vectors of one model.

    Attributes:
        num_layers_run: layers computed since it was made; grows within a batch.
        num_dimensions: length of a whole vector.
        vocabulary_size: ids are below it.
        max_positions: longest input that the model has positions for.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe) -> None:
        self._model = model
        self._recipe = recipe
        self.num_layers_run = 0
        config = model.config.get_text_config()
        hidden_size = int(config.hidden_size)
        if recipe.hidden_size not in (None, hidden_size):
            raise ModelRefused(f"its pooling takes vectors of {recipe.hidden_size}, the model makes {hidden_size}")
        self.num_dimensions = hidden_size * len(recipe.poolings)
        self.vocabulary_size = int(config.vocab_size)
        self.max_positions = _max_positions(model)
        self._padding_id = int(getattr(config, "pad_token_id", None) or 0)
        for layer in _layers(model):
            layer.register_forward_hook(self._count)

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        """Whole vectors, [N, num_dimensions] float32 on the CPU.

        Args:
            inputs: 1 to ``max_positions`` ids each, special ones included, all below ``vocabulary_size``.
        """
        longest = max(map(len, inputs))
        width = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_positions)
        ids = torch.full((len(inputs), width), self._padding_id, dtype=torch.long)
        mask = torch.zeros((len(inputs), width), dtype=torch.long)
        for row, one in enumerate(inputs):
            ids[row, : len(one)] = torch.tensor(one, dtype=torch.long)
            mask[row, : len(one)] = 1
        device = self._model.device
        ids, mask = ids.to(device), mask.to(device)
        hidden = self._model(input_ids=ids, attention_mask=mask, **self._options).last_hidden_state
        vectors = pool(hidden, mask, self._recipe.poolings)
        return shorten(vectors, self.num_dimensions, normalizes=self._recipe.normalizes).cpu()

    def shorten(self, vectors: torch.Tensor, num_dimensions: int) -> torch.Tensor:
        """Vectors of fewer dimensions from whole ones."""
        if num_dimensions == self.num_dimensions:
            return vectors
        return shorten(vectors, num_dimensions, normalizes=self._recipe.normalizes)

    @property
    def can_shorten(self) -> bool:
        """Whether the beginning of a vector means something by itself; that of several joined ones is the first."""
        return len(self._recipe.poolings) == 1

    def check(self) -> None:
        """Compare the model with itself: an input's vector alone and beside longer ones.

        Raises:
            LogitsNotFinite: its vectors are not numbers.
            ModelRefused: it cannot be run, or padding changes its vectors.
        """
        size, longest = self.vocabulary_size, min(self.max_positions, 24)
        lengths = [length for length in (3, longest, 9) if length <= longest] or [longest]
        inputs = [[(7 * row + 3 * at + 1) % size for at in range(length)] for row, length in enumerate(lengths)]
        kind = type(self._model).__name__
        try:
            together = self.encode(inputs)
            alone = torch.cat([self.encode([one]) for one in inputs])
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
            raise ModelRefused(f"{kind} does not turn ids into token vectors: {error}") from error
        if not bool(torch.isfinite(alone).all()):
            raise LogitsNotFinite("its vectors are NaN or infinite")
        scale = float(alone.abs().max()) or 1.0
        difference = float((together - alone).abs().max()) / scale
        if not difference <= _TOLERANCES[self._model.dtype]:
            raise ModelRefused(f"{kind}'s vectors change by {difference:.1g} beside longer inputs: it ignores padding")

    @property
    def _options(self) -> dict[str, bool]:
        return {"use_cache": False} if getattr(self._model.config, "use_cache", None) is not None else {}

    def _count(self, *_: object) -> None:
        self.num_layers_run += 1


def _layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """What a forward pass consists of: the longest list of modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[model])


def _max_positions(model: PreTrainedModel) -> int:
    """Positions that the model was made for; some architectures (RoBERTa) begin to count behind the padding id."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return positions_of(model.config.get_text_config()).count
