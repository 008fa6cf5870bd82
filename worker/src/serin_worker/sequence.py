"""One growing list of tokens and the blocks that hold its keys and values; and the request it belongs to.

Knows nothing about scheduling order, tensors or sampling.
"""

import itertools
from collections.abc import Sequence as Ids

from serin_mesh.identity import block_key

from serin_worker.request import GenerationRequest, Sampling, ScoreRequest

_NO_SAMPLING = Sampling(temperature=0.0)
PROMISED = -1
"""Stands for a token that is drawn already, on a device, and that the host does not know yet."""
GONE = -1
"""Stands in a sequence's blocks for one that left the window: no token will look at it again."""


class Sequence:
    """A choice of a generation, or the text of a score.

    ``token_ids`` are prompt, prior output and output; the first ``num_computed`` of them have their keys and values in
    ``blocks``. After a preemption ``num_computed`` is 0 and everything is computed again.
    """

    __slots__ = (
        "blocks",
        "choice_index",
        "constraint",
        "group",
        "is_finished",
        "keys",
        "min_tokens",
        "num_computed",
        "num_gone",
        "num_prior",
        "num_prompt",
        "num_published",
        "sampling",
        "token_ids",
    )

    def __init__(self, group: "Group", choice_index: int, token_ids: list[int], num_prompt: int) -> None:
        self.group = group
        self.choice_index = choice_index
        self.token_ids = token_ids
        self.num_prompt = num_prompt
        self.num_prior = len(token_ids) - num_prompt
        self.num_computed = 0
        self.blocks: list[int] = []
        self.num_gone = 0
        self.keys: list[bytes] = []
        self.num_published = 0
        self.is_finished = False
        request = group.request
        self.sampling = _NO_SAMPLING if isinstance(request, ScoreRequest) else request.sampling
        self.min_tokens = 0 if isinstance(request, ScoreRequest) else request.stopping.min_tokens
        self.constraint = None if isinstance(request, ScoreRequest) else request.constraints.get(choice_index)

    @property
    def num_tokens(self) -> int:
        """Prompt, prior and new output."""
        return len(self.token_ids)

    @property
    def num_output(self) -> int:
        """Output tokens, prior included."""
        return len(self.token_ids) - self.num_prompt

    @property
    def num_new(self) -> int:
        """Output tokens of this attempt."""
        return self.num_output - self.num_prior

    def promise(self) -> None:
        """Count a token that is drawn and not known: the step after it is planned."""
        self.token_ids.append(PROMISED)

    def take(self, token_id: int) -> int:
        """The next token, or the one that was promised; returns its position in the output."""
        if self.token_ids[-1] == PROMISED:
            self.token_ids[-1] = token_id
        else:
            self.token_ids.append(token_id)
        return self.num_output - 1

    @property
    def held(self) -> list[int]:
        """Blocks that are still held: the last ones, where a window moves on."""
        return self.blocks[self.num_gone :]

    def let_go(self, num_blocks: int) -> list[int]:
        """Give up the first ``num_blocks`` blocks; returns those that were held until now."""
        gone = self.blocks[self.num_gone : num_blocks]
        self.blocks[self.num_gone : num_blocks] = [GONE] * len(gone)
        self.num_gone += len(gone)
        return gone

    def extend_keys(self, num_blocks: int, block_size: int) -> list[bytes]:
        """Keys of the first ``num_blocks`` full blocks; empty if this request shares nothing."""
        if not self.group.request.namespace:
            return []
        while len(self.keys) < num_blocks:
            parent = self.keys[-1] if self.keys else self.group.request.namespace
            start = len(self.keys) * block_size
            self.keys.append(block_key(parent, self.token_ids[start : start + block_size]))
        return self.keys[:num_blocks]


class Group:
    """A request in the engine: its sequences, and what all of them have used so far."""

    _arrivals = itertools.count()

    def __init__(self, request: GenerationRequest | ScoreRequest) -> None:
        self.request = request
        self.is_score = isinstance(request, ScoreRequest)
        self.arrival = next(self._arrivals)
        self.is_started = False
        self.num_cached: int | None = None
        self.num_preemptions = 0
        self.sequences = _sequences_of(self, request)
        self.unforked: list[Sequence] = self.sequences[1:]
        """Choices that wait for the first one's prompt, whose blocks they will share."""

    @property
    def request_id(self) -> str:
        """The caller's name for the request."""
        return self.request.request_id

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt, counted once for all choices."""
        return len(self.request.prompt_ids)

    @property
    def is_finished(self) -> bool:
        """Whether every choice has its last token."""
        return all(sequence.is_finished for sequence in self.sequences)


def _sequences_of(group: Group, request: GenerationRequest | ScoreRequest) -> list[Sequence]:
    prompt = list(request.prompt_ids)
    if isinstance(request, ScoreRequest):
        return [Sequence(group, 0, prompt + list(request.target_ids), len(prompt))]
    prior: dict[int, Ids[int]] = {p.choice_index: p.token_ids for p in request.prior}
    finished = {p.choice_index for p in request.prior if p.is_finished}
    return [
        Sequence(group, index, prompt + list(prior.get(index, ())), len(prompt))
        for index in range(request.num_choices)
        if index not in finished
    ]
