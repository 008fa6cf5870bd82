"""The gateway put together: what every request works with, and the tasks that keep it going.

Knows nothing about doors and processes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType

import structlog
from serin_mesh.breaker import Unavailable
from serin_mesh.errors import MeshError

from serin_gateway.administration.desk import AdminDesk
from serin_gateway.audit.entry import audit_secret
from serin_gateway.audit.log import AuditLog, MemoryAuditLog
from serin_gateway.audit.redis_log import RedisAuditLog
from serin_gateway.catalog import CatalogSource
from serin_gateway.collaborators import Collaborators
from serin_gateway.guards.desk import Guards
from serin_gateway.guards.journal import GuardJournal
from serin_gateway.guards.metrics import GuardMetrics
from serin_gateway.guards.policy import GuardPolicy
from serin_gateway.guards.witness import Witness
from serin_gateway.idempotency import AnswerStore, IdempotencyDesk, MemoryAnswers, RedisAnswers
from serin_gateway.journal import LogJournal, report_not_kept
from serin_gateway.keys import KeyStore, KeyStoreDown, MemoryKeyStore, RedisKeyStore, key_secret
from serin_gateway.keys.authenticator import FRESH_S, Authenticator
from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.keys.redis_tenants import RedisTenantStore
from serin_gateway.keys.tenants import MemoryTenantStore, Tenants, TenantStore
from serin_gateway.keys.tokens import Tokens
from serin_gateway.ledger.metrics import LedgerMetrics
from serin_gateway.ledger.reaper import Reaper
from serin_gateway.ledger.redis_usage import RedisUsage
from serin_gateway.ledger.usage import MemoryUsage, UsageStore
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
from serin_gateway.overload import Turnstiles
from serin_gateway.overload.metrics import OverloadMetrics
from serin_gateway.placement import Placement
from serin_gateway.responses import MemoryResponses, RedisResponses, ResponseDesk, ResponseStore
from serin_gateway.settings import GatewaySettings
from serin_gateway.state import (
    BudgetedKeyStore,
    BudgetedRecords,
    BudgetedResponses,
    StateCalls,
    check_state,
    open_state,
)
from serin_gateway.upstream.accounts import GrpcAccounts
from serin_gateway.upstream.answer_seal import AnswerSeal
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
PAY_EVERY_S = 1.0
MAKE_DETECTORS_EVERY_S = 60.0
KEYS_BUDGET_S = 0.5
"""A key that nobody knows yet waits so long; one that was confirmed before has a copy (`keys.authenticator`)."""
RESPONSES_BUDGET_S = 0.25
"""A conversation may have megabytes: what takes more is given up, and after three times in a row not tried for 1 s."""

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
        self._redis = (
            open_state(settings.state_redis, longest_call_s=settings.limits_wait_s) if settings.state_redis else None
        )
        store: KeyStore = MemoryKeyStore()
        found: KeyStore = store
        tenants: TenantStore = MemoryTenantStore()
        memory = MemoryLimiter()
        limiter: Limiter = memory
        usage: UsageStore = MemoryUsage(memory)
        audit: AuditLog = MemoryAuditLog(audit_secret(mesh_secret))
        self._shared: RedisLimiter | None = None
        records: RecordStore = MemoryRecords()
        answers: AnswerStore = MemoryAnswers()
        responses: ResponseStore = MemoryResponses()
        if self._redis is not None:
            found = RedisKeyStore(self._redis, organization=settings.organization)
            store = BudgetedKeyStore(found, StateCalls("keys", KEYS_BUDGET_S))
            usage = RedisUsage(self._redis, organization=settings.organization)
            audit = RedisAuditLog(self._redis, audit_secret(mesh_secret), organization=settings.organization)
            tenants = RedisTenantStore(self._redis, organization=settings.organization)
            self._shared = RedisLimiter(
                self._redis,
                organization=settings.organization,
                calls=StateCalls("limits", settings.limits_wait_s),
                lines_kept_days=settings.ledger_days,
            )
            limiter = FallbackLimiter(self._shared, share=settings.local_limit_share, on_alone=metrics.decided_alone)
            records = BudgetedRecords(
                RedisRecords(self._redis, organization=settings.organization), StateCalls("records")
            )
            answers = RedisAnswers(self._redis, organization=settings.organization)
            responses = BudgetedResponses(
                RedisResponses(self._redis, organization=settings.organization),
                StateCalls("responses", RESPONSES_BUDGET_S),
            )
        self._channels = Channels(settings, targets)
        self._detokenizer = GrpcDetokenizer(self._channels, metrics.text_paused)
        self._pulses = Pulses()
        self._workers = GrpcWorkers(self._channels, self._pulses)
        self._loads = ReportedLoads(settings, catalog, self._pulses)
        self._tasks: list[asyncio.Task[None]] = []
        placement, sessions, observed = Placement(loads=self._loads), Sessions(mesh_secret), ObservationBuffer()
        self._reporter = ObservationReporter(settings, observed)
        self._keeper = RecordKeeper(records, settings.remembered_requests)
        scorers = GrpcScorers(self._channels)
        self._shadow = ShadowScorer(catalog, placement, scorers, observed, sessions)
        ObservingMetrics(observed, self._keeper, self._shadow, metrics.registry)
        self._guards, self._witness = Guards(), Witness(audit)
        self._catalog = catalog
        self._tenants = Tenants(tenants)
        metrics.projects = self._tenants.is_declared
        tokens = Tokens(lambda: _issuers(catalog))
        authenticator = Authenticator(
            keys or store, key_secret(mesh_secret), tenants=self._tenants, tokens=tokens, home=settings.organization
        )
        if self._shared is not None:
            LedgerMetrics(self._shared, metrics.registry)
            self._reaper = Reaper(self._shared, GrpcAccounts(self._channels, catalog), metrics.reaped)
        metrics.keys_stale.set_function(lambda: authenticator.stale_s)
        self.collaborators = Collaborators(
            catalog=catalog,
            authenticator=authenticator,
            leases=LeaseBook(limiter),
            guards=self._guards,
            tokenizer=GrpcTokenizer(self._channels, self._pulses),
            detokenizer=self._detokenizer,
            memory=GrpcMemory(self._channels, catalog, AnswerSeal(mesh_secret)),
            placement=placement,
            workers=self._workers,
            embedders=GrpcEmbedders(self._channels, self._pulses),
            scorers=scorers,
            journal=GuardJournal(
                ObservingJournal(LogJournal(metrics), observed, self._keeper, sessions),
                GuardMetrics(metrics.registry, lambda: self._witness.num_lost),
                self._witness,
            ),
            shadow=self._shadow,
            feedback=FeedbackDesk(self._keeper, observed),
            idempotency=IdempotencyDesk(answers, report_not_kept),
            responses=ResponseDesk(responses, metrics.response_not_kept),
            turnstiles=Turnstiles(
                catalog, self._loads, max_waiting=settings.max_waiting, on_refused=metrics.refused_for_overload
            ),
            desk=AdminDesk(
                keys or found,
                tenants,
                usage,
                audit,
                key_secret(mesh_secret),
                home=settings.organization,
                catalog=catalog,
            ),
        )
        OverloadMetrics(self.collaborators.turnstiles, metrics.registry)

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
            ("watch work streams", self._workers.watch),
            ("watch loads", self._loads.watch),
            ("adapt to loads", self.collaborators.turnstiles.keep_adapting),
            ("watch pulses", self._pulses.watch),
            ("report observations", self._reporter.keep_reporting),
            ("keep records", self._keeper.keep_writing),
            ("score in the shadow", self._shadow.keep_scoring),
            ("follow tenants", self._follow_tenants),
            ("make detectors", self._make_detectors),
            ("witness guards", self._witness.keep_writing),
            *([("settle for the dead", self._reaper.keep_reaping), ("pay", self._keep_paying)] if self._shared else []),
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
        self._guards.close()
        with suppress(KeyStoreDown):
            await self._witness.write()
        await self._pay()
        await self._detokenizer.close()
        await self._workers.close()
        await self._channels.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def _confirm_keys(self) -> None:
        while True:
            await asyncio.sleep(CONFIRM_KEYS_EVERY_S)
            await self.collaborators.authenticator.refresh()

    async def _follow_tenants(self) -> None:
        while True:
            await self._tenants.refresh()
            await asyncio.sleep(FRESH_S)

    async def _make_detectors(self) -> None:
        """Have the detectors of every policy that is published, so that no request waits for them."""
        while True:
            for policy in _guard_policies(self._catalog):
                await self._guards.ready(policy)
            await self._catalog.changed(MAKE_DETECTORS_EVERY_S)

    async def _keep_paying(self) -> None:
        while True:
            await asyncio.sleep(PAY_EVERY_S)
            await self._pay()

    async def _pay(self) -> None:
        """Bring what Redis could not hear of into the ledger."""
        with suppress(Unavailable):
            if self._shared is not None:
                await self._shared.pay()


def _guard_policies(catalog: CatalogSource) -> Sequence[GuardPolicy]:
    """Those that are declared; none while nothing is published."""
    try:
        return catalog.current().policy.guards.all
    except MeshError:
        return ()


def _issuers(catalog: CatalogSource) -> Sequence[TokenIssuer]:
    """Those that are declared; none while nothing is published."""
    try:
        return catalog.current().policy.token_issuers
    except MeshError:
        return ()


async def _going_on(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """A task whose end would be a defect: it is reported, not lost."""
    try:
        await work()
    except Exception as error:
        log.error("task.failed", task=name, error=type(error).__name__, message=str(error))
        raise
