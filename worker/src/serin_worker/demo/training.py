"""Training: one optimizer step after another, each a pure function of the seed.

Matrices are moved by Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), everything
else by AdamW. Matrix products run in bfloat16 where the processor has it, weights stay in float32. Knows nothing about
files or the screen.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch.overrides import TorchFunctionMode
from transformers import Qwen3ForCausalLM

from serin_worker.demo.batches import Batch, training_batches
from serin_worker.demo.model import build_model
from serin_worker.model.packing import computed_in


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run, given the corpus, the number of threads and the kind of processor.

    Attributes:
        num_steps: optimizer steps; learning rates rise for ``num_warmup_steps`` and fall to zero over the last
            ``cooldown_share`` of all steps.
        seed: of the weights and of the order of dialogues.
        extra_kind: a further kind of question to teach; empty: none.
        family: whose shape the model has.
    """

    num_steps: int
    seed: int = 0
    num_rows: int = 24
    row_length: int = 256
    matrix_rate: float = 0.01
    other_rate: float = 0.003
    weight_decay: float = 0.01
    num_warmup_steps: int = 50
    cooldown_share: float = 0.4
    extra_kind: str = ""
    family: str = "small"

    def rate(self, step: int) -> float:
        """Share of the full learning rate at a step, 0 to 1."""
        warm = (step + 1) / self.num_warmup_steps
        cool = (self.num_steps - step) / max(1.0, self.cooldown_share * self.num_steps)
        return min(1.0, warm, cool)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step reports: its number from 1, and the weighted mean loss of the answers' ids (natural log)."""

    step: int
    loss: float


class Training:
    """A model on its way from a seed to the end of a recipe."""

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe = recipe
        self._device = torch.device(device)
        # Where the processor would only emulate it, float32 is several times as fast.
        self._has_bfloat16 = self._device.type != "cpu" or computed_in(torch.bfloat16) is torch.bfloat16
        self.model: Qwen3ForCausalLM = build_model(recipe.seed, recipe.family)
        torch.nn.Module.to(self.model, self._device)
        self._optimizers = _optimizers(self.model, recipe)

    def run(self) -> Iterator[Progress]:
        """Take all steps, one for each value asked for."""
        self.model.train()
        recipe = self.recipe
        batches = training_batches(recipe.seed, recipe.num_rows, recipe.row_length, recipe.extra_kind)
        for step in range(self.recipe.num_steps):
            loss = self._step(next(batches).to(self._device), self.recipe.rate(step))
            yield Progress(step + 1, loss)
        self.model.train(False)

    def _step(self, batch: Batch, rate: float) -> float:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._has_bfloat16):
            states = self.model.model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False)
            logits = self.model.lm_head(states.last_hidden_state[batch.learned])
        losses = F.cross_entropy(logits.float(), batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, full_rate in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * full_rate
            with contextlib.nullcontext() if self._has_bfloat16 else _WithoutBfloat16():
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


class _WithoutBfloat16(TorchFunctionMode):
    """Muon orthogonalizes in bfloat16 and cannot be told otherwise: emulated, that is nine tenths of a step."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return function(*args, **(kwargs or {}))


def _optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers with their full learning rates."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed_tokens" not in name else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay)
    adam = torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, recipe.matrix_rate), (adam, recipe.other_rate)]
