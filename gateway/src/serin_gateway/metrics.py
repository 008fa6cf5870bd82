"""Prometheus metrics of a gateway. Labels come from closed sets: declared models, our operations, our reasons.

Own names are `serin_*`; the request histograms carry OpenTelemetry's `gen_ai.server.*` names. Knows nothing about
requests beyond their receipts.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serin_gateway.receipt import Receipt

VERBS = ("authenticate", "admit", "guard", "route", "tokenize", "recall", "place", "generate", "settle")
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
PAUSE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0)
MAX_PROJECTS = 200
OTHER = "other"
VERB_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class GatewayMetrics:
    """What a gateway measures, and the journal that feeds it."""

    def __init__(self, into: CollectorRegistry) -> None:
        self.registry = into
        self.running = Gauge("serin_gateway_requests_running", "Requests being served.", ["door"], registry=into)
        self.finished = Counter(
            "serin_gateway_requests",
            "Requests served, by how they ended.",
            ["door", "operation", "model", "reason"],
            registry=into,
        )
        self.tokens = Counter(
            "serin_gateway_tokens",
            "Tokens that count, by kind (prompt, cached, completion).",
            ["model", "kind"],
            registry=into,
        )
        self.verbs = Histogram(
            "serin_gateway_verb_seconds",
            "Time in each verb of a request.",
            ["verb"],
            buckets=VERB_BUCKETS,
            registry=into,
        )
        self.resumes = Counter(
            "serin_gateway_resumes",
            "Times an answer that had begun went on on another worker, by why the one before let go.",
            ["model", "reason"],
            registry=into,
        )
        self.takeovers = Counter(
            "serin_gateway_lane_takeovers",
            "Answers that another lane of the same KV digest went on with, because no worker of their own could.",
            ["model"],
            registry=into,
        )
        self.retries = Counter(
            "serin_gateway_retries",
            "Times a worker let go of a prompt before its first token, by why.",
            ["model", "reason"],
            registry=into,
        )
        self.decisions = Counter(
            "serin_cascade_decisions",
            "Requests that a cascade decided about: whose answer was given, and by which rule.",
            ["cascade", "rule", "decision"],
            registry=into,
        )
        self.fallbacks = Counter(
            "serin_gateway_fallbacks",
            "Times another model was asked in the place of one that could not take a request, by why.",
            ["model", "to", "reason"],
            registry=into,
        )
        self.pauses = Histogram(
            "serin_gateway_resume_pause_seconds",
            "From the last token of a lost worker to the first of the next one.",
            ["model", "reason"],
            buckets=PAUSE_BUCKETS,
            registry=into,
        )
        self.keys_stale = Gauge(
            "serin_gateway_keys_stale_seconds",
            "Time since the key store was first asked in vain; 0: it answers.",
            registry=into,
        )
        self.text_pauses = Histogram(
            "serin_gateway_detokenize_pause_seconds",
            "For how long an answer's text had lost its tokenizer before it went on.",
            ["model"],
            buckets=PAUSE_BUCKETS,
            registry=into,
        )
        self.duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to its end.",
            ["gen_ai_request_model", "gen_ai_operation_name", "error_type"],
            buckets=DURATION_BUCKETS,
            registry=into,
        )
        self.first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's arrival to its first token.",
            ["gen_ai_request_model"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=into,
        )
        self.per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each token after the first.",
            ["gen_ai_request_model"],
            buckets=PER_TOKEN_BUCKETS,
            registry=into,
        )
        self.alone = Counter(
            "serin_gateway_limits_alone",
            "Requests whose limits this gateway decided about by its own share of them, as the state Redis was away.",
            ["outcome"],
            registry=into,
        )
        self.responses_not_kept = Counter(
            "serin_gateway_responses_not_kept",
            "Responses that were delivered and not kept, by why: the state Redis was away, the response too large, its "
            "conversation too large for its project (full), or what it continues gone.",
            ["why"],
            registry=into,
        )
        self.overload = Counter(
            "serin_gateway_overload_refusals",
            "Requests refused because the line for their model was full, or longer than they had time for (late).",
            ["model", "why"],
            registry=into,
        )

        self.project_tokens = Counter(
            "serin_gateway_project_tokens",
            "Tokens that count, by declared project and kind; of other projects together under `other`.",
            ["project", "kind"],
            registry=into,
        )
        self.projects: Callable[[str], bool] = lambda project: False
        """Whether a project is declared: only those have series of their own."""
        self._named: set[str] = set()
        self.reapings = Counter(
            "serin_gateway_ledger_reaped",
            "Lines written for gateways that died, by who had counted: the worker, or the last renewal.",
            ["counted_by"],
            registry=into,
        )

        # Children by label, looked up once: labels come from closed sets.
        self._running = {door: self.running.labels(door) for door in ("rest", "grpc")}
        self._verbs = {verb: self.verbs.labels(verb) for verb in VERBS}

    def text_paused(self, model: str, seconds: float) -> None:
        """An answer's text goes on with another tokenizer."""
        self.text_pauses.labels(model).observe(seconds)

    def decided_alone(self, admitted: bool) -> None:
        """Limits were decided about without what all gateways agree on."""
        self.alone.labels("admitted" if admitted else "refused").inc()

    def response_not_kept(self, why: str) -> None:
        """A response that was to be kept is not."""
        self.responses_not_kept.labels(why).inc()

    def refused_for_overload(self, model: str, why: str) -> None:
        """More was asked of a model than its workers can bear."""
        self.overload.labels(model, why).inc()

    def reaped(self, num_lines: int, counted_by: str) -> None:
        """What a gateway that died had left open is settled."""
        self.reapings.labels(counted_by).inc(num_lines)

    def _label(self, project: str) -> str:
        """Declared projects by name, the first `MAX_PROJECTS` that are seen; whoever makes requests makes no series."""
        if project in self._named:
            return project
        if len(self._named) < MAX_PROJECTS and self.projects(project):
            self._named.add(project)
            return project
        return OTHER

    def opened(self, receipt: Receipt) -> None:
        """A request has arrived."""
        self._running[receipt.door].inc()

    def closed(self, receipt: Receipt) -> None:
        """Count a finished request."""
        self._running[receipt.door].dec()
        self.finished.labels(receipt.door, receipt.operation, receipt.model, receipt.reason).inc()
        for verb, seconds in receipt.verbs.items():
            self._verbs[verb].observe(seconds)
        if not receipt.model:
            return
        error = "" if receipt.reason == "ok" else receipt.reason
        self.duration.labels(receipt.model, receipt.operation, error).observe(receipt.duration_s)
        for model, used in receipt.billed.items():
            for kind, count in (
                ("prompt", used.prompt_tokens),
                ("cached", used.cached_tokens),
                ("completion", used.completion_tokens),
            ):
                self.tokens.labels(model, kind).inc(count)
                self.project_tokens.labels(self._label(receipt.tenant), kind).inc(count)
        if receipt.decision is not None:
            decided = receipt.decision
            self.decisions.labels(decided.cascade, decided.rule.value, decided.outcome.value).inc()
        for one in receipt.fallbacks:
            self.fallbacks.labels(one.model, one.to, one.reason).inc()
        for lost in receipt.lost_workers:
            if not lost.mid_stream:
                self.retries.labels(receipt.model, lost.cause).inc()
            elif lost.pause_s is not None:
                self.resumes.labels(receipt.model, lost.cause).inc()
                self.pauses.labels(receipt.model, lost.cause).observe(lost.pause_s)
        for attempt in receipt.attempts:
            if attempt.taken_over_by:
                self.takeovers.labels(attempt.model).inc()
        if receipt.first_token_s is not None and receipt.last_token_s is not None:
            self.first_token.labels(receipt.model).observe(receipt.first_token_s)
            spent_s = receipt.last_token_s - receipt.first_token_s
            if receipt.usage.completion_tokens > 1 and spent_s:  # an answer that was held back comes all at once
                self.per_token.labels(receipt.model).observe(spent_s / (receipt.usage.completion_tokens - 1))
