"""A step on its way through the device: launched, its tokens not yet known on the host.

The step after it can be planned and launched meanwhile: what that one reads of it stays on the device. Knows nothing
about when that may be done.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from serin_worker.batch import StepPlan
from serin_worker.sampling.sampler import Drawing
from serin_worker.sequence import Sequence


@dataclass(frozen=True, slots=True)
class TokensAhead:
    """Tokens that a step drew, where it drew them.

    Attributes:
        token_ids: [drawn] integers on the device.
        sequences: whose they are, in the same order.
    """

    token_ids: torch.Tensor
    sequences: Rows[Sequence]

    def read_by(self, plan: StepPlan) -> torch.Tensor:
        """The last token [work] of each sequence of a plan of decodes, all of which are among those drawn for."""
        places = {sequence: place for place, sequence in enumerate(self.sequences)}
        index = [places[work.sequence] for work in plan.work]
        if index == list(range(len(self.sequences))):
            return self.token_ids
        on_host = torch.tensor(index, dtype=torch.int32)
        device = self.token_ids.device
        if device.type == "cuda":  # a copy from pages that may move would wait for the device
            on_host = on_host.pin_memory()
        return self.token_ids.index_select(0, on_host.to(device, non_blocking=True))


@dataclass(slots=True)
class Flight:
    """What is on its way.

    Attributes:
        plan: the step.
        sequences: those that draw in it.
        drawing: what they draw, in the same order.
        began: when it was launched.
    """

    plan: StepPlan
    sequences: list[Sequence]
    drawing: Drawing
    began: float

    @property
    def tokens(self) -> TokensAhead:
        """For the step that follows."""
        return TokensAhead(self.drawing.on_device, self.sequences)
