"""The gateway put together: what every request works with, and the tasks that keep it going.

Knows nothing about doors and processes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

import structlog

from serin_gateway.catalog import CatalogSource
from serin_gateway.collaborators import Collaborators
from serin_gateway.idempotency import AnswerStore, IdempotencyDesk, MemoryAnswers, RedisAnswers
from serin_gateway.journal import LogJournal, report_not_kept
from serin_gateway.keys import KeyStore, MemoryKeyStore, RedisKeyStore, key_secret
from serin_gateway.keys.authenticator import Authenticator
from serin_gateway.limits.fallback import FallbackLimiter
from serin_gateway.limits.leases import LeaseBook
from serin_gateway.limits.limiter import Limiter
from serin_gateway.limits.memory import MemoryLimiter
from serin_gateway.limits.shared import RedisLimiter
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.feedback import FeedbackDesk
from serin_gateway.observing.journal import ObservingJournal
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.metrics import ObservingMetrics
from serin_gateway.observing.records import MemoryRecords, RecordStore
from serin_gateway.observing.redis_records import RedisRecords
from serin_gateway.observing.sessions import Sessions
from serin_gateway.observing.shadow import ShadowScorer
from serin_gateway.placement import Placement
from serin_gateway.settings import GatewaySettings
from serin_gateway.state import BudgetedKeyStore, BudgetedRecords, StateCalls, check_state, open_state
from serin_gateway.upstream.cache import GrpcMemory
from serin_gateway.upstream.detokenizer import GrpcDetokenizer
from serin_gateway.upstream.embedding import GrpcEmbedders
from serin_gateway.upstream.loads import ReportedLoads
from serin_gateway.upstream.observations import ObservationReporter
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.scoring import GrpcScorers
from serin_gateway.upstream.targets import Channels, Targets
from serin_gateway.upstream.tokenizer import GrpcTokenizer
from serin_gateway.upstream.worker import GrpcWorkers

CONFIRM_KEYS_EVERY_S = 60.0

log = structlog.get_logger()


class House:
    """A running gateway without its doors, while it is entered.

    Args:
        settings: of this gateway.
        mesh_secret: what key digests derive from.
        catalog: where the models in force come from.
        targets: how services are reached.
        metrics: what requests are counted by.
        keys: another key store than the state Redis.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        mesh_secret: bytes,
        catalog: CatalogSource,
        targets: Targets,
        metrics: GatewayMetrics,
        *,
        keys: KeyStore | None = None,
    ) -> None:
        self._redis = open_state(settings.state_redis) if settings.state_redis else None
        store: KeyStore = MemoryKeyStore()
        limiter: Limiter = MemoryLimiter()
        records: RecordStore = MemoryRecords()
        answers: AnswerStore = MemoryAnswers()
        if self._redis is not None:
            found = RedisKeyStore(self._redis, organization=settings.organization)
            store = BudgetedKeyStore(found, StateCalls("keys"))
            shared = RedisLimiter(self._redis, organization=settings.organization)
            limiter = FallbackLimiter(
                shared, StateCalls("limits"), share=settings.local_limit_share, on_alone=metrics.decided_alone
            )
            records = BudgetedRecords(
                RedisRecords(self._redis, organization=settings.organization), StateCalls("records")
            )
            answers = RedisAnswers(self._redis, organization=settings.organization)
        self._channels = Channels(settings, targets)
        self._detokenizer = GrpcDetokenizer(self._channels, metrics.text_paused)
        self._pulses = Pulses()
        self._loads = ReportedLoads(settings, catalog, self._pulses)
        self._tasks: list[asyncio.Task[None]] = []
        placement, sessions, observed = Placement(loads=self._loads), Sessions(mesh_secret), ObservationBuffer()
        self._reporter = ObservationReporter(settings, observed)
        self._keeper = RecordKeeper(records, settings.remembered_requests)
        self._shadow = ShadowScorer(catalog, placement, GrpcScorers(self._channels), observed, sessions)
        ObservingMetrics(observed, self._keeper, self._shadow, metrics.registry)
        authenticator = Authenticator(keys or store, key_secret(mesh_secret))
        metrics.keys_stale.set_function(lambda: authenticator.stale_s)
        self.collaborators = Collaborators(
            catalog=catalog,
            authenticator=authenticator,
            leases=LeaseBook(limiter),
            guards=(),
            tokenizer=GrpcTokenizer(self._channels),
            detokenizer=self._detokenizer,
            memory=GrpcMemory(self._channels, catalog),
            placement=placement,
            workers=GrpcWorkers(self._channels, self._pulses),
            embedders=GrpcEmbedders(self._channels, self._pulses),
            journal=ObservingJournal(LogJournal(metrics), observed, self._keeper, sessions),
            shadow=self._shadow,
            feedback=FeedbackDesk(self._keeper, observed),
            idempotency=IdempotencyDesk(answers, report_not_kept),
        )

    async def __aenter__(self) -> "House":
        """Begin.

        Raises:
            StateUnsafe: the state Redis would lose or evict what is kept in it.
        """
        if self._redis is not None and not await check_state(self._redis):
            log.warning("state.unavailable", action="keys and limits are local until it is back")
        for name, work in (
            ("confirm keys", self._confirm_keys),
            ("renew leases", self.collaborators.leases.keep_alive),
            ("watch detokenizers", self._detokenizer.watch),
            ("watch loads", self._loads.watch),
            ("watch pulses", self._pulses.watch),
            ("report observations", self._reporter.keep_reporting),
            ("keep records", self._keeper.keep_writing),
            ("score in the shadow", self._shadow.keep_scoring),
        ):
            self._tasks.append(asyncio.create_task(_going_on(name, work), name=name))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; requests have ended before, but for those that nobody follows any more."""
        await self.collaborators.idempotency.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._detokenizer.close()
        await self._channels.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def _confirm_keys(self) -> None:
        while True:
            await asyncio.sleep(CONFIRM_KEYS_EVERY_S)
            await self.collaborators.authenticator.refresh()


async def _going_on(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """A task whose end would be a defect: it is reported, not lost."""
    try:
        await work()
    except Exception as error:
        log.error("task.failed", task=name, error=type(error).__name__, message=str(error))
        raise
