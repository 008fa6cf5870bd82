"""The choices of one step that follow a grammar, and what each may draw.

Knows sequences and plans; nothing about how a mask is made or applied.
"""

from collections.abc import Iterator, Mapping

from serin_worker.batch import StepPlan
from serin_worker.grammars.masks import MaskJob, MaskMaker, MaskOrder, Outcome
from serin_worker.ongoing import Ongoing
from serin_worker.request import GenerationRequest
from serin_worker.sequence import Sequence


class StepMasks:
    """Begun before the model runs, collected when it is done.

    Args:
        maker: makes the masks.
        plan: whose drawn sequences are looked through.
        ongoing: of each request, by its id.
        model_end_ids: ids by which the model itself ends.
    """

    def __init__(
        self, maker: MaskMaker, plan: StepPlan, ongoing: Mapping[str, Ongoing], model_end_ids: frozenset[int]
    ) -> None:
        self._sequences: list[Sequence] = []
        orders: list[MaskOrder] = []
        for sequence in (sequence for work in plan.work for sequence in work.drawn):
            request = sequence.group.request
            if sequence.constraint is None or not isinstance(request, GenerationRequest):
                continue
            self._sequences.append(sequence)
            orders.append(
                MaskOrder(
                    sequence.constraint,
                    early_ids=ongoing[request.request_id].end_ids if sequence.num_output < sequence.min_tokens else (),
                    never_ids=model_end_ids if request.stopping.ignore_eos else (),
                )
            )
        self._job: MaskJob | None = maker.begin(orders) if orders else None

    def collect(self) -> Iterator[tuple[Sequence, Outcome]]:
        """Wait for the masks: what each sequence may draw, that nothing can follow, or that its grammar overran."""
        return zip(self._sequences, self._job.collect() if self._job is not None else (), strict=True)
