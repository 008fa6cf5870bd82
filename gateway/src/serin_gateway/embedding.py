"""The life of an embeddings request: the verbs of `pipeline`, but for recall, since nothing is generated.

All inputs of a request are embedded on one lane, for vectors of different weights cannot be compared; on it they go to
workers part by part, each to the one with the least to do. Nothing is said before all of them are there, so that until
then any part may begin again on another worker, and all of them on another lane.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from serin_mesh.errors import MeshError, Reason

from serin_gateway import bounds
from serin_gateway.ask import TokenPrompt, Turns, blaming, place_of, refuse
from serin_gateway.embedder import Vector
from serin_gateway.embedding_ask import PART_INPUTS, EmbeddingAsk, part_inputs
from serin_gateway.failures import Failures
from serin_gateway.limits.limiter import Amount
from serin_gateway.pipeline import Attempt, Request
from serin_gateway.tokenizer import CallScope

PART_TOKENS = 16_384
"""Of a part, which is what one call computes; an input that is longer than this is a part by itself."""

_INDEX = re.compile(r"(?:runs|texts)\[(\d+)\]")


async def embed(request: Request, ask: EmbeddingAsk) -> Sequence[Vector]:
    """Vectors of an ask of the authenticated caller, in the order of its inputs.

    Raises:
        MeshError: it is refused, or failed.
    """
    await request.admit(ask)
    ask = replace(ask, model=request.receipt.model, inputs=(await request.guard(ask)).inputs)
    attempt = await request.attempt(lambda failures: EmbeddingAttempt(request, ask, failures))
    request.account()
    return attempt.vectors


class EmbeddingAttempt(Attempt):
    """All inputs of an ask on one lane.

    Args:
        request: whose they are.
        ask: what was asked.
        failures: the workers that let go of them so far.
    """

    def __init__(self, request: Request, ask: EmbeddingAsk, failures: Failures) -> None:
        super().__init__(request, ask, 0, failures)
        self.vectors: list[Vector] = []
        self._embedding = ask

    @property
    def has_begun(self) -> bool:
        """True once every input has its vector."""
        return len(self.vectors) == len(self.ask.inputs)

    @property
    def bound(self) -> Amount:
        """What its inputs were taken for before their tokens were counted."""
        return bounds.most(self._model, self.ask.inputs, self.ask.sampling)

    async def run(self, avoid: Collection[str]) -> None:
        """From a lane to the last vector.

        Raises:
            MeshError: whatever ended it.
        """
        scope = self.route(avoid)
        self._check_lane(scope)
        inputs = await self.encode(scope)
        await self.request.cover(self.model, 0, self.most, self.bound)
        parts = list(_parts(inputs, part_inputs(self._model.worker_places)))
        for at, (first, part) in enumerate(parts):
            if at or self._number:  # the first turn of the first attempt was had with the admission
                await self._turn(len(part), len(parts) - at)
            self.vectors += await self.embed(scope, first, part)
        self.account.token_arrived()

    async def encode(self, scope: CallScope) -> Sequence[Sequence[int]]:
        """Verb 5: from texts to ids, with the model's special ones around them; ids are taken as they are.

        Raises:
            MeshError: PROMPT_TOO_LONG with the input's index and both numbers.
        """
        with self.receipt.timed("tokenize"):
            found: list[Sequence[int]] = []
            for start in range(0, len(self.ask.inputs), PART_INPUTS):
                part = self.ask.inputs[start : start + PART_INPUTS]
                texts = [one for one in part if isinstance(one, str)]
                try:
                    runs = iter(await self.house.tokenizer.encode_each(scope, texts) if texts else ())
                except MeshError as error:
                    raise self._about_input(error, start, scope) from error
                found += [one.token_ids if isinstance(one, TokenPrompt) else next(runs) for one in part]
        for index, ids in enumerate(found):
            if len(ids) > scope.lane.context_length:
                raise self._input_too_long(index, str(len(ids)), scope)
        self.prompt = [token_id for ids in found for token_id in ids]
        return found

    async def embed(self, scope: CallScope, first: int, part: Sequence[Sequence[int]]) -> Sequence[Vector]:
        """Verbs 7 and 8: the vectors of a part, from the first worker that gives them; a lost worker is noted.

        Args:
            scope: the lane.
            first: index of the part's first input.
            part: ids of its inputs.

        Raises:
            MeshError: the part may not go on elsewhere.
        """
        num_tokens = sum(map(len, part))
        while True:
            _, worker = await self.place(scope)
            self.given_to(worker)
            with self.receipt.timed("generate"), self.house.placement.running(worker, num_tokens, len(part)):
                try:
                    return await self.house.embedders.embed(
                        scope, worker, part, self._embedding.num_dimensions or 0, lambda: self._may_move(scope)
                    )
                except MeshError as error:
                    self._lost(worker, self._about_input(error, first, scope))

    async def _turn(self, num_inputs: int, num_parts: int) -> None:
        try:
            await self.request.next_turn(Turns(num_inputs, num_parts))
        except MeshError:
            self.account.cut_short()
            raise

    def _check_lane(self, scope: CallScope) -> None:
        most, wanted = scope.lane.num_dimensions, self._embedding.num_dimensions or 0
        if not most:
            raise refuse(
                "model",
                f"{scope.model!r} generates text: it has no pooling configuration and computes no embeddings",
                Reason.PARAMETER_UNSUPPORTED,
            )
        if wanted > most:
            name = self.ask.named("num_dimensions")
            raise refuse(name, f"{wanted} is not accepted; accepted: 1 to {most}, which is what the model has")

    def _about_input(self, error: MeshError, first: int, scope: CallScope) -> MeshError:
        """What the caller is told of an input that somebody else refused by an index of its own."""
        found = _INDEX.fullmatch(error.metadata.get("parameter", ""))
        if found is None:
            return error
        index = first + self._index_of(int(found[1]), first, is_text=found[0].startswith("texts"))
        if error.reason is Reason.PROMPT_TOO_LONG:
            least = "at least " if error.metadata.get("at_least") else ""
            return self._input_too_long(index, least + error.metadata.get("token_count", "more"), scope)
        name = self._name_of(index)
        return blaming(name, error, error.message.replace(found[0], name))

    def _index_of(self, index: int, first: int, *, is_text: bool) -> int:
        """Within a part: where an input is that was the ``index``-th of those sent."""
        if not is_text:
            return index
        part = self.ask.inputs[first : first + PART_INPUTS]
        return [at for at, one in enumerate(part) if isinstance(one, str)][index]

    def _name_of(self, index: int) -> str:
        return self.ask.named(place_of(self.ask.inputs[index], index))

    def _input_too_long(self, index: int, num_tokens: str, scope: CallScope) -> MeshError:
        name, most = self._name_of(index), scope.lane.context_length
        return MeshError(
            Reason.PROMPT_TOO_LONG,
            f"{name}: it has {num_tokens} tokens; the model takes at most {most}",
            parameter=name,
            token_count=num_tokens.removeprefix("at least "),
            max_token_count=str(most),
        )


def _parts(inputs: Sequence[Sequence[int]], most: int) -> Iterator[tuple[int, Sequence[Sequence[int]]]]:
    """The inputs in order, part by part of at most so many, each with the index of its first."""
    first = num_tokens = 0
    for index, ids in enumerate(inputs):
        is_full = index - first >= most or num_tokens + len(ids) > PART_TOKENS
        if is_full and index > first:
            yield first, inputs[first:index]
            first, num_tokens = index, 0
        num_tokens += len(ids)
    yield first, inputs[first:]
