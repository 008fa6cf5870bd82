"""Does paged attention compute what the model's own attention computes? Checked on a few tokens before serving.

A model may do something around its attention that pages cannot know of; its logits then differ here instead of its
answers in production. Nor may a row's bits depend on its batch, where that is promised. Knows nothing about requests.
"""

import math

import torch

from serin_worker.attention import interface
from serin_worker.attention.layer import StepSequences
from serin_worker.errors import LogitsNotFinite, ModelRefused
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.routing import Routing

_NUM_TOKENS = 40
_LEAST_TOKENS = 20
_CROWD = 256
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
_QUANTIZED = 0.15
"""Of rows in 8 bits: a last bit that differs may move a number by a 127th of the largest."""
_NO_PROMISE = "'numerics: invariant' cannot be promised"

Chunk = tuple[int, int, int]
"""(sequence, first position, tokens)"""


def num_check_blocks(block_size: int) -> int:
    """KV blocks that the comparison takes: pages of its own, however small the cache is that serves."""
    return 2 * -(-_NUM_TOKENS // block_size)


class Verification:
    """Runs random tokens through a model that is bound to :func:`num_check_blocks` pages, none of them in use."""

    def __init__(self, model: CausalModel, block_size: int) -> None:
        self._model = model
        self._blocks_each = num_check_blocks(block_size) // 2
        self._length = min(_NUM_TOKENS, model.shape.context_length)
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(model.shape.vocabulary_size, (2, self._length), generator=generator)

    def check_attention(self) -> None:
        """Compare with the model's own attention, to the accuracy of its precision; both choose the same experts.

        Raises:
            LogitsNotFinite: the model's own logits are NaN or infinite.
            ModelRefused: the two differ by more than rounding.
        """
        module = self._model.module
        routing = Routing(self._length)
        module.set_attn_implementation("eager")
        try:
            with torch.inference_mode(), routing.noting():
                own = module(input_ids=self._ids[:1].to(self._model.device), use_cache=False).logits[0]
        finally:
            module.set_attn_implementation(interface.NAME)
        if not bool(torch.isfinite(own).all()):
            raise LogitsNotFinite(f"{type(module).__name__} computes logits that are NaN or infinite")
        half = -(-self._length // 2)
        paged = []
        for first, count in ((0, half), (half, self._length - half)):
            if count:
                with routing.repeating(first, count):
                    paged += self._run([(0, first, count)], 1)
        self._judge(_difference(torch.cat(paged), own))

    def _judge(self, difference: float) -> None:
        model = self._model
        tolerated = _QUANTIZED if model.is_quantized else _TOLERANCE[model.dtype]
        if difference <= tolerated:
            return
        what, end = type(model.module).__name__, "this architecture is not supported"
        if model.is_quantized:
            what += f" with linear layers in {model.linears.partition('+')[0]}"
            end = (
                "8 bits are too few for this model where it is served without them (--quantize none); where it is "
                f"refused then too, {end}"
            )
        raise ModelRefused(
            f"{what} computes something else through paged attention than by itself (logits differ by "
            f"{difference:.2g}, and {tolerated:g} is accepted); {end}"
        )

    def check_products(self, row_multiple: int) -> int:
        """Look at every matrix product that torch computes for the model.

        On devices other than the CPU those of all rows with one weight are left to :meth:`check_invariance`.

        Args:
            row_multiple: number of rows in whose multiples a row of a packed layer keeps its bits.

        Returns:
            The number of rows in whose multiples rows of all products do.

        Raises:
            ModelRefused: one is not known to, so ``numerics: invariant`` cannot be promised.
        """
        num_rows, products = self._model.find_products()
        needed = row_multiple
        for product in products:
            if product.is_packed or (product.num_rows and self._model.device.type != "cpu"):
                multiple: int | None = row_multiple
            else:
                multiple = product.row_multiple()
            # Other rows than those of the step are as many as were routed somewhere: nobody pads them.
            if multiple is None or (multiple > 1 and product.num_rows != num_rows):
                raise ModelRefused(
                    f"{type(self._model.module).__name__} in {self._model.dtype} has products of matrices whose rows "
                    f"may have other bits in another batch (torch's {product}), so {_NO_PROMISE}"
                )
            needed = max(needed, multiple)
        return needed

    def check_invariance(self, row_multiple: int) -> None:
        """Compare the bits of rows alone, in a batch, and in chunks.

        Raises:
            ModelRefused: a row depends on its batch, or the model has too few positions to tell, so ``numerics:
                invariant`` cannot be promised.
        """
        if self._length < _LEAST_TOKENS:
            raise ModelRefused(
                f"{type(self._model.module).__name__} has {self._length} positions, and it takes {_LEAST_TOKENS} to "
                f"see whether a token's numbers depend on its batch, so {_NO_PROMISE}"
            )
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
                f"batch, so {_NO_PROMISE}"
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
