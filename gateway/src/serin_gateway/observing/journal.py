"""A journal that remembers: attempts are observed when they begin and end, and every request becomes a record.

Knows nothing about logs.
"""

import time

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.observation import Beginning, Observation
from serin_gateway.observing.sessions import Sessions
from serin_gateway.receipt import Journal, Receipt


class ObservingJournal:
    """Tells another journal, then notes what happened.

    Requests that were pinned to a lane by their caller are remembered and not observed: nobody drew them a lane, so
    they say nothing about how the lanes compare.

    Args:
        inner: the other journal.
        buffer: where observations go.
        keeper: where records go.
        sessions: numbers of sessions.
    """

    def __init__(self, inner: Journal, buffer: ObservationBuffer, keeper: RecordKeeper, sessions: Sessions) -> None:
        self._inner = inner
        self._buffer = buffer
        self._keeper = keeper
        self._sessions = sessions

    def opened(self, receipt: Receipt) -> None:
        """A request has arrived."""
        self._inner.opened(receipt)

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """An attempt has its first worker."""
        self._inner.placed(receipt, attempt)
        if receipt.session_key:
            session = self._sessions.number(receipt.session_key)
            attempt.was_told_of = self._buffer.begin(Beginning(attempt.model, attempt.lane, session))

    def closed(self, receipt: Receipt) -> None:
        """A request is over."""
        self._inner.closed(receipt)
        session = self._sessions.number(receipt.session_key)
        if receipt.session_key:
            now = time.time()
            for attempt in receipt.attempts:
                if attempt.lane:
                    self._buffer.observe(
                        Observation(receipt.request_id, attempt.model or receipt.model, session, now, attempt)
                    )
        self._keeper.keep(receipt, session)
