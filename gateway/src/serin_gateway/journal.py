"""Tells logs and metrics about requests: one canonical line each, never prompt text. Knows no request's inside."""

import traceback

from serin_mesh import logs

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.receipt import Receipt

MAX_FRAMES = 12


class LogJournal:
    """Writes `request.finished`, and hands every receipt on to the metrics."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._log = logs.get()

    def opened(self, receipt: Receipt) -> None:
        """A request has arrived."""
        self._metrics.opened(receipt)

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """It goes to no log: the line at the end names its worker."""

    def closed(self, receipt: Receipt) -> None:
        """A request is over."""
        self._metrics.closed(receipt)
        say = self._log.error if receipt.reason == "INTERNAL" else self._log.info
        say(
            "request.finished",
            request_id=receipt.request_id,
            door=receipt.door,
            operation=receipt.operation,
            tenant=receipt.tenant,
            key=receipt.key_id,
            model=receipt.model,
            asked=receipt.asked,
            route=receipt.route,
            lane=receipt.lane,
            worker=receipt.worker,
            reason=receipt.reason,
            prompt_tokens=receipt.usage.prompt_tokens,
            cached_tokens=receipt.usage.cached_tokens,
            completion_tokens=receipt.usage.completion_tokens,
            attempts=receipt.num_attempts,
            resumes=receipt.num_resumes,
            lost_workers=[
                {
                    "worker": lost.worker,
                    "cause": lost.cause,
                    "message": lost.message,
                    "pause_s": _rounded(lost.pause_s),
                }
                for lost in receipt.lost_workers
            ],
            taken_over_by=[one.taken_over_by for one in receipt.attempts if one.taken_over_by],
            cached_answer=receipt.cached_answer,
            guards=[
                {"detector": one.detector, "direction": one.direction, "action": one.action, "kinds": one.kinds}
                for one in receipt.guarded or ()
            ],
            first_token_s=_rounded(receipt.first_token_s),
            seconds=_rounded(receipt.duration_s),
            verbs={verb: _rounded(seconds) for verb, seconds in receipt.verbs.items()},
        )


def report_not_kept() -> None:
    """Log that the store took no answer of an `Idempotency-Key`."""
    logs.get().warning("answer.not_kept", action="a repeat under its Idempotency-Key is answered anew")


def report_defect(error: BaseException, request_id: str) -> None:
    """Log a defect of ours by type and place; its message may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    logs.get().error(
        "request.crashed",
        request_id=request_id,
        error=type(error).__name__,
        place=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
