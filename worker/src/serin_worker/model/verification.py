"""Does paged attention compute what the model's own attention computes? Checked on a few tokens before serving.

A model may do something around its attention that pages cannot know of; its logits then differ here instead of its
answers in production. Knows nothing about requests.
"""

import math

import torch

from serin_worker.attention import interface
from serin_worker.attention.layer import StepSequences
from serin_worker.errors import LogitsNotFinite, ModelRefused
from serin_worker.model.causal_lm import CausalModel

_NUM_TOKENS = 40
_CROWD = 256
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
_QUANTIZED = 0.15
"""Of rows in 8 bits: a last bit that differs may move a number by a 127th of the largest."""

Chunk = tuple[int, int, int]
"""(sequence, first position, tokens)"""


class Verification:
    """Runs random tokens through a bound model whose pages are not in use yet."""

    def __init__(self, model: CausalModel, block_size: int, num_blocks: int) -> None:
        self._model = model
        self._blocks_each = min(-(-_NUM_TOKENS // block_size), num_blocks // 2)
        self._length = min(_NUM_TOKENS, self._blocks_each * block_size, model.shape.context_length)
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(model.shape.vocabulary_size, (2, self._length), generator=generator)

    def check_attention(self) -> None:
        """Compare with the model's own attention, to the accuracy of its precision.

        Raises:
            LogitsNotFinite: the model's own logits are NaN or infinite.
            ModelRefused: the two differ by more than rounding.
        """
        if self._length < 2:
            return
        half = self._length // 2
        paged = torch.cat([self._run([(0, 0, half)], 1)[0], self._run([(0, half, self._length - half)], 1)[0]])
        module = self._model.module
        module.set_attn_implementation("eager")
        try:
            with torch.inference_mode():
                own = module(input_ids=self._ids[:1].to(self._model.device), use_cache=False).logits[0]
        finally:
            module.set_attn_implementation(interface.NAME)
        if not bool(torch.isfinite(own).all()):
            raise LogitsNotFinite(f"{type(module).__name__} computes logits that are NaN or infinite")
        difference = _difference(paged, own)
        if not difference <= (_QUANTIZED if self._model.is_quantized else _TOLERANCE[self._model.dtype]):
            raise ModelRefused(
                f"{type(module).__name__} computes something else through paged attention than by itself "
                f"(logits differ by {difference:.2g}); this architecture is not supported"
            )

    def check_invariance(self, row_multiple: int) -> None:
        """Compare the bits of rows alone, in a batch, and in chunks.

        Raises:
            ModelRefused: a row depends on its batch, so ``numerics: invariant`` cannot be promised.
        """
        if self._length < 20:
            return
        alone = self._run([(0, 0, self._length)], row_multiple)[0]
        first, second, last = 5, self._length - 6, self._length - 1
        parts = [
            self._run([(0, 0, first)], row_multiple)[0],
            self._run([(1, 0, 17), (0, first, second - first)], row_multiple)[1],
            self._run([(0, second, last - second), (1, 17, 3)], row_multiple)[0],
            self._run([(0, last, 1)], row_multiple)[0],
        ]
        crowded = self._run([(0, 0, self._length)], row_multiple, _CROWD)[0]
        if not (torch.equal(alone, torch.cat(parts)) and torch.equal(alone, crowded)):
            raise ModelRefused(
                f"{type(self._model.module).__name__} in {self._model.dtype} gives a token other numbers in another "
                "batch, so 'numerics: invariant' cannot be promised; use 'numerics: fast'"
            )

    def _run(self, chunks: list[Chunk], row_multiple: int, num_computed: int = 0) -> list[torch.Tensor]:
        """Logits of all rows of each chunk; at least ``num_computed`` rows go through the model."""
        num_rows = sum(count for _, _, count in chunks)
        num_wanted = num_rows + -num_rows % row_multiple
        num_padding = max(num_wanted, num_computed) - num_rows
        ids = torch.cat([self._ids[s, first : first + count] for s, first, count in chunks])
        positions = torch.cat([torch.arange(first, first + count) for _, first, count in chunks])
        starts = torch.tensor([0, *(count for _, _, count in chunks)]).cumsum(0).int()
        contexts = torch.tensor([first + count for _, first, count in chunks], dtype=torch.int32)
        table = torch.arange(2 * self._blocks_each, dtype=torch.int32).view(2, -1)
        sequences = StepSequences(starts, contexts, table[[s for s, _, _ in chunks]].contiguous())
        device = self._model.device
        logits = self._model.forward(
            torch.nn.functional.pad(ids, (0, num_padding)).to(device),
            torch.nn.functional.pad(positions, (0, num_padding)).to(device),
            sequences,
            torch.arange(num_wanted, device=device),
        )
        return list(torch.split(logits[:num_rows], [count for _, _, count in chunks]))


def _difference(found: torch.Tensor, right: torch.Tensor) -> float:
    """Norm of what differs, over that of what is right; a row at a time, which of a large vocabulary is enough."""
    apart = whole = 0.0
    for one, other in zip(found, right, strict=True):
        apart += float((one.double() - other.double()).square().sum())
        whole += float(other.double().square().sum())
    return (apart / whole) ** 0.5 if whole else math.nan
