"""A journal that tells what guards decided: to metrics, and to the audit log by way of a buffer.

Knows nothing about how anything is found.
"""

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.guards.metrics import GuardMetrics
from serin_gateway.guards.witness import Witness
from serin_gateway.receipt import Journal, Receipt


class GuardJournal:
    """Tells another journal, then notes decisions.

    Args:
        inner: the other journal.
        metrics: where they are counted.
        witness: who writes them into the audit log.
    """

    def __init__(self, inner: Journal, metrics: GuardMetrics, witness: Witness) -> None:
        self._inner = inner
        self._metrics = metrics
        self._witness = witness

    def opened(self, receipt: Receipt) -> None:
        """A request has arrived."""
        self._inner.opened(receipt)

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """An attempt has its first worker."""
        self._inner.placed(receipt, attempt)

    def closed(self, receipt: Receipt) -> None:
        """A request is over."""
        self._inner.closed(receipt)
        if receipt.guarded:
            self._metrics.count(receipt.guarded)
            self._witness.note(receipt.key_id, receipt.request_id, receipt.guarded)
