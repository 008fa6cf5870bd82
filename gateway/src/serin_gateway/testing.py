"""For tests of this room and of users: a tokenizer of bytes and workers that follow a script, in memory.

Nothing here talks to a network. A gateway put together from these parts answers through the same pipeline and doors.
"""

import asyncio
import codecs
import dataclasses
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from serin_mesh.errors import MeshError, Reason

from serin_gateway.administration.desk import AdminDesk
from serin_gateway.ask import refuse
from serin_gateway.audit.log import MemoryAuditLog
from serin_gateway.catalog import Catalog, Lane, MemoryCatalog, ServedModel, Worker
from serin_gateway.collaborators import Collaborators
from serin_gateway.conversation import Conversation
from serin_gateway.embedder import Vector
from serin_gateway.events import FinishReason
from serin_gateway.grammar import Grammar
from serin_gateway.guards.desk import Guards
from serin_gateway.guards.journal import GuardJournal
from serin_gateway.guards.metrics import GuardMetrics
from serin_gateway.guards.witness import Witness
from serin_gateway.idempotency import IdempotencyDesk, MemoryAnswers
from serin_gateway.keys import KeyRecord, MemoryKeyStore, Role, mint_key
from serin_gateway.keys.authenticator import Authenticator
from serin_gateway.keys.tenants import MemoryTenantStore, Tenants
from serin_gateway.ledger.usage import MemoryUsage
from serin_gateway.limits.leases import LeaseBook
from serin_gateway.limits.memory import MemoryLimiter
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.feedback import FeedbackDesk
from serin_gateway.observing.journal import ObservingJournal
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.records import MemoryRecords
from serin_gateway.observing.sessions import Sessions
from serin_gateway.observing.shadow import NoShadow
from serin_gateway.overload import Turnstiles
from serin_gateway.placement import Placement
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.recall import NoMemory
from serin_gateway.receipt import MemoryJournal
from serin_gateway.responses import MemoryResponses, ResponseDesk
from serin_gateway.tokenizer import CallScope, Decoded, Rendered, TextSink
from serin_gateway.tools import ChoiceMode
from serin_gateway.worker import (
    ChoiceMade,
    TokenLogprob,
    TokensMade,
    Work,
    WorkDone,
    WorkEvent,
    WorkOrder,
    WorkStarted,
)

END_ID = 256
"""Id that ends an answer; ids below are bytes."""

SECRET = b"a secret for tests, 32 bytes long"

Script = Callable[[Worker, WorkOrder], Sequence[WorkEvent | MeshError]]
"""What a worker does with an order; an error ends the work there."""


class ByteTokenizer:
    """Ids are the bytes of the text; a conversation is its roles and texts, a line each.

    Args:
        form: how answers are written; a call that is required is begun as Hermes does.
    """

    def __init__(self, form: AnswerForm = AnswerForm()) -> None:  # noqa: B008 - frozen
        self._form = form
        self.conversations: list[Conversation] = []
        """Everything that was rendered."""

    def expect(self, scope: CallScope) -> None:
        """It always answers."""

    async def render(self, scope: CallScope, conversation: Conversation, *, constrain_calls: bool = False) -> Rendered:
        """A line of tools, if there are any, and ``role: text`` for each turn; names are not shown.

        A last turn that is gone on from has no line's end. The grammar of calls names the tools, strict ones with a
        mark; one whose schema has a member ``bad`` is refused.
        """
        self.conversations.append(conversation)
        if conversation.shown_tools and self._form.calls is CallForm.NONE:
            raise refuse("tools", "this model's template cannot show tools", Reason.PARAMETER_UNSUPPORTED)
        if conversation.effort not in ("", "none") and not self._form.reasoning_open:
            raise refuse("reasoning_effort", "this model does not reason", Reason.PARAMETER_UNSUPPORTED)
        text = "".join(f"{message.role}: {''.join(message.texts)}\n" for message in conversation.messages)
        text = text[:-1] if conversation.continues else text
        form, choice = self._form, conversation.tool_choice
        if conversation.shown_tools:
            text = f"tools: {', '.join(tool.name for tool in conversation.shown_tools)}\n{text}"
        if choice.begins_call:
            rest = f'{choice.name}", "arguments":' if choice.mode is ChoiceMode.NAMED else ""
            form = dataclasses.replace(form, beginning=f'<tool_call>\n{{"name": "{rest}')
        ids = list((text + form.beginning).encode())
        unshown = [f"messages[{at}].name" for at, message in enumerate(conversation.messages) if message.name]
        return Rendered(ids, form, _calls_of(conversation) if constrain_calls else "", unshown)

    async def encode(self, scope: CallScope, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """The bytes; there are no special ids that would be added."""
        return list(text.encode())

    async def encode_each(self, scope: CallScope, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The bytes of each."""
        return [list(text.encode()) for text in texts]

    async def decode(self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = False) -> str:
        """The text of the bytes; the end id has a name."""
        end = b"<end>" if keep_special_tokens else b""
        return b"".join(bytes([i]) if i < END_ID else end for i in token_ids).decode("utf-8", "replace")

    async def prepare_grammar(self, scope: CallScope, grammar: Grammar) -> str:
        """Its kind and text; one that says ``bad`` is refused."""
        if grammar.text == "bad":
            raise MeshError(Reason.GRAMMAR_INVALID, "that is bad", parameter="grammar")
        return f"{grammar.kind.value}{'?' if grammar.lenient else ''}: {grammar.text}"

    async def token_bytes(
        self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = True
    ) -> Sequence[bytes]:
        """One byte each; the end id has a name."""
        end = b"<end>" if keep_special_tokens else b""
        return [bytes([i]) if i < END_ID else end for i in token_ids]

    async def vocabulary_size(self, scope: CallScope) -> int:
        """The bytes and the end id."""
        return END_ID + 1


def _calls_of(conversation: Conversation) -> str:
    for at, tool in enumerate(conversation.shown_tools):
        if '"bad"' in tool.parameters_json:
            raise MeshError(Reason.GRAMMAR_INVALID, "that is bad", parameter=f"tools[{at}].parameters")
    names = [f"{tool.name}{'!' if tool.strict else ''}" for tool in conversation.shown_tools]
    return f"calls: {conversation.tool_choice.mode.value} {', '.join(names)}"


class ByteDetokenizer:
    """Opens sequences of bytes."""

    def open(
        self,
        scope: CallScope,
        sink: TextSink,
        *,
        stop_strings: Sequence[str] = (),
        min_tokens: int = 0,
        shown_ids: Sequence[int] = (),
        goes_on: bool = False,
    ) -> "ByteSequence":
        """Begin a sequence."""
        return ByteSequence(sink, stop_strings, min_tokens)


class ByteSequence:
    """One sequence of bytes; tells its sink from the event loop, never from inside a call."""

    def __init__(self, sink: TextSink, stop_strings: Sequence[str], min_tokens: int) -> None:
        self._sink = sink
        self._stop_strings = stop_strings
        self._min_tokens = min_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._num_tokens = 0
        self._is_over = False

    @property
    def is_behind(self) -> bool:
        """Nothing ever waits here."""
        return False

    def append(self, token_ids: Sequence[int]) -> None:
        """Add ids."""
        asyncio.get_running_loop().call_soon(self._append, list(token_ids))

    def close(self) -> None:
        """No more ids follow."""
        asyncio.get_running_loop().call_soon(self._close)

    def abandon(self) -> None:
        """Nobody listens any more."""
        self._is_over = True

    def _append(self, token_ids: list[int]) -> None:
        text = ""
        for token_id in token_ids:
            if self._is_over:
                return
            self._num_tokens += 1
            if token_id < END_ID:
                self._held += self._decoder.decode(bytes([token_id]))
            if self._num_tokens <= self._min_tokens:
                text, self._held = text + self._held, ""
                continue
            found = [(self._held.index(stop), stop) for stop in self._stop_strings if stop in self._held]
            if found:
                at, stop = min(found)
                self._tell(text + self._held[:at], stop)
                return
            num_kept = self._num_kept()
            cut = len(self._held) - num_kept
            text, self._held = text + self._held[:cut], self._held[cut:]
        if not self._is_over:
            self._sink.decoded(Decoded(text, self._num_tokens))

    def _close(self) -> None:
        if not self._is_over:
            self._tell(self._held + self._decoder.decode(b"", True), None)

    def _tell(self, text: str, stop_string: str | None) -> None:
        self._is_over = True
        self._sink.decoded(Decoded(text, self._num_tokens, stop_string, closed=True))

    def _num_kept(self) -> int:
        """Characters at the end that may begin a stop string."""
        return max(
            (n for stop in self._stop_strings for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0
        )


class ScriptedWorkers:
    """Workers that do what a script says; every order is kept."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.orders: list[tuple[Worker, WorkOrder]] = []
        self.may_move: Callable[[], bool] = lambda: True
        """Whether the work of the last order could go on elsewhere."""
        self.num_running = 0
        self.hold = asyncio.Event()
        """Clear it, and work pauses before its next event."""
        self.hold.set()
        self._changed = asyncio.Event()

    async def until_running(self, count: int) -> None:
        """Wait until exactly this many orders are being worked on."""
        while self.num_running != count:
            self._changed.clear()
            await self._changed.wait()

    def count(self, change: int) -> None:
        """Note that work begins or ends."""
        self.num_running += change
        self._changed.set()

    def generate(self, scope: CallScope, worker: Worker, order: WorkOrder, may_move: Callable[[], bool]) -> Work:
        """Begin work."""
        self.orders.append((worker, order))
        self.may_move = may_move
        return _ScriptedWork(self, self._script(worker, order))


class _ScriptedWork:
    def __init__(self, workers: ScriptedWorkers, events: Sequence[WorkEvent | MeshError]) -> None:
        self._workers = workers
        self._events = events
        self._aborted = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[WorkEvent]:
        self._workers.count(+1)
        try:
            for event in self._events:
                await self._turn()
                if self._aborted.is_set():
                    return
                if isinstance(event, MeshError):
                    raise event
                yield event
        finally:
            self._workers.count(-1)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if not self._workers.hold.is_set():
            waits = [asyncio.ensure_future(self._workers.hold.wait()), asyncio.ensure_future(self._aborted.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def abort(self) -> None:
        self._aborted.set()


class LengthEmbedders:
    """Vectors of an input's length, its first id and zeros; every call is kept, and some fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[CallScope, Worker, Sequence[Sequence[int]]]] = []
        self.failures: list[MeshError | None] = []
        """What the next calls fail with, one each; None: that one does not."""
        self.hold = asyncio.Event()
        """Clear it, and calls wait."""
        self.hold.set()

    async def embed(
        self,
        scope: CallScope,
        worker: Worker,
        inputs: Sequence[Sequence[int]],
        num_dimensions: int,
        may_move: Callable[[], bool],
    ) -> Sequence[Vector]:
        """Vectors."""
        self.calls.append((scope, worker, inputs))
        await self.hold.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        size = num_dimensions or scope.lane.num_dimensions
        return [array("f", [len(ids), ids[0], *[0.0] * size][:size]) for ids in inputs]


class ScriptedScorers:
    """Scores by a rule: an answer's id on a worker has a log-probability and a likeliest id; every call is kept."""

    def __init__(self, rule: Callable[[Worker, int], TokenLogprob | MeshError]) -> None:
        self.rule = rule
        self.calls: list[tuple[CallScope, Worker, Sequence[int], Sequence[int]]] = []
        self.hold = asyncio.Event()
        """Clear it, and calls wait."""
        self.hold.set()

    async def score(
        self,
        scope: CallScope,
        worker: Worker,
        prompt: Sequence[int],
        answer: Sequence[int],
        *,
        num_alternatives: int = 1,
        priority: int = 0,
    ) -> Sequence[TokenLogprob]:
        """What the rule says."""
        self.calls.append((scope, worker, prompt, answer))
        await self.hold.wait()
        scores = []
        for token_id in answer:
            found = self.rule(worker, token_id)
            if isinstance(found, MeshError):
                raise found
            scores.append(found)
        return scores


def saying(*texts: str, piece: int = 1) -> Script:
    """A script: choice i says ``texts[i]`` (the last text again for further ones), ``piece`` ids at a time.

    It goes on behind prior output, ends with the end id, or with ``max_tokens``.
    """

    def script(worker: Worker, order: WorkOrder) -> list[WorkEvent | MeshError]:
        events: list[WorkEvent | MeshError] = [WorkStarted(worker.instance, 0, order.sampling.seed or 0)]
        prior = {one.choice_index: one for one in order.prior_outputs}
        for index in range(order.sampling.choice_count):
            ids = [*texts[min(index, len(texts) - 1)].encode(), END_ID]
            limit = order.sampling.max_tokens or len(ids)
            done = prior.get(index)
            at = len(done.token_ids) if done else 0
            if done and done.finished:
                continue
            while at < min(limit, len(ids)):
                part = ids[at : min(at + piece, limit)]
                events.append(TokensMade(index, at, part, _logprobs(order, part)))
                at += len(part)
            ended = at >= len(ids)
            events.append(
                ChoiceMade(index, FinishReason.STOP if ended else FinishReason.LENGTH, END_ID if ended else None)
            )
        return [*events, WorkDone()]

    return script


def _logprobs(order: WorkOrder, token_ids: Sequence[int]) -> list[TokenLogprob]:
    wanted = order.sampling.top_logprobs
    if wanted is None:
        return []
    others = [(63 + n, -1.0 - n) for n in range(wanted - 1)]
    return [TokenLogprob(-0.5, [(i, -0.5), *others][:wanted]) for i in token_ids]


def small_catalog(*lanes: Lane, **model: Any) -> Catalog:
    """One model, ``small``, also known as ``demo``."""
    return Catalog([ServedModel("small", ["demo"], lanes or [small_lane()], 64, **model)])


def small_lane(
    lane: str = "lane-a", weight: int = 100, num_workers: int = 1, num_places: int = 8, **fields: Any
) -> Lane:
    """A ready lane of ``small``; each of its workers has so many places."""
    cluster = f"worker.small@{lane}"
    workers = [Worker(f"{lane}-w{n}", f"127.0.0.1:{9000 + n}", cluster, num_places) for n in range(num_workers)]
    defaults: dict[str, Any] = {
        "vocabulary_digest": "vocabulary",
        "kv_digest": f"kv-{lane}",
        "context_length": 1024,
        "block_size": 16,
        "workers": workers,
        "tokenizers": ["127.0.0.1:8900"],
    }
    return Lane(lane, weight, **(defaults | fields))


class MemoryLoads:
    """Loads of workers; some of them, or of the tokenizers, have fallen silent, for a while."""

    def __init__(self) -> None:
        self.silent: set[str] = set()

    def num_sequences(self, endpoint: str) -> int:
        """Unknown."""
        return 0

    def is_silent(self, endpoint: str) -> bool:
        """Whether it says nothing now."""
        return endpoint in self.silent


class MemoryHouse:
    """Everything a pipeline works with, in memory; each part may be replaced.

    Args:
        script: what workers do.
        parts: collaborators to use instead of those here.
    """

    def __init__(self, script: Script | None = None, **parts: Any) -> None:
        self.keys = MemoryKeyStore()
        self.workers = ScriptedWorkers(script or saying("hello"))
        self.embedders = LengthEmbedders()
        self.scorers = ScriptedScorers(lambda _, token_id: TokenLogprob(-token_id / 100, [(token_id, -token_id / 100)]))
        self.catalog = MemoryCatalog(small_catalog())
        self.journal = MemoryJournal()
        self.limiter = MemoryLimiter()
        self.observed = ObservationBuffer()
        self.records = MemoryRecords()
        self.keeper = RecordKeeper(self.records, 1000)
        self.shadow = NoShadow()
        self.answers = MemoryAnswers()
        self.responses = MemoryResponses()
        self.not_kept: list[str] = []
        """Why responses that were to be kept are not."""
        self.tenants = MemoryTenantStore()
        self.audit = MemoryAuditLog(SECRET)
        self.witness = Witness(self.audit)
        self.guard_metrics = GuardMetrics(CollectorRegistry())
        self.copy = Tenants(self.tenants)
        """The gateway's copy of the tenants; a test refreshes it."""
        whole = Collaborators(
            catalog=self.catalog,
            authenticator=Authenticator(self.keys, SECRET, tenants=self.copy),
            leases=LeaseBook(self.limiter),
            guards=Guards(),
            tokenizer=ByteTokenizer(),
            detokenizer=ByteDetokenizer(),
            memory=NoMemory(),
            placement=Placement(),
            workers=self.workers,
            embedders=self.embedders,
            scorers=self.scorers,
            journal=GuardJournal(
                ObservingJournal(self.journal, self.observed, self.keeper, Sessions(SECRET)),
                self.guard_metrics,
                self.witness,
            ),
            shadow=self.shadow,
            feedback=FeedbackDesk(self.keeper, self.observed),
            idempotency=IdempotencyDesk(self.answers),
            responses=ResponseDesk(self.responses, self.not_kept.append),
            turnstiles=Turnstiles(self.catalog),
            desk=AdminDesk(
                self.keys, self.tenants, MemoryUsage(self.limiter), self.audit, SECRET, catalog=self.catalog
            ),
        )
        self.collaborators = dataclasses.replace(whole, **parts)

    async def key(self, role: Role = Role.APP, **options: Any) -> str:
        """A new key."""
        key, _ = await self.key_and_record(role, **options)
        return key

    async def key_and_record(self, role: Role = Role.APP, **options: Any) -> tuple[str, KeyRecord]:
        """A new key and its record."""
        key, record = mint_key(SECRET, role=role, **options)
        await self.keys.create(record)
        return key, record
