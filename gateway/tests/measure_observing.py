"""What observing costs a request, in microseconds of CPU; run by hand: ``python gateway/tests/measure_observing.py``.

The first figure is spent while the request settles; the second afterwards, once a second, on the same event loop.
"""

import asyncio
import time

from serin.control.v1 import observation_pb2
from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.events import ChoiceEnded, FinishReason
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.journal import ObservingJournal
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.records import MemoryRecords
from serin_gateway.observing.sessions import Sessions
from serin_gateway.receipt import Receipt
from serin_gateway.upstream.observations import fill

NUM_REQUESTS = 4000
ROUNDS = 7


class Choice:
    """An answer of 100 tokens."""

    opening = "The capital of Peru is Lima, which lies on the coast of the Pacific Ocean. " * 3
    ended = ChoiceEnded(0, FinishReason.STOP)
    num_counted = 100


class Silent:
    """A journal that does nothing."""

    def opened(self, receipt: Receipt) -> None:
        """Nothing."""

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """Nothing."""

    def closed(self, receipt: Receipt) -> None:
        """Nothing."""


async def measure() -> tuple[float, float]:
    """Microseconds a request, while it settles and afterwards."""
    buffer, keeper = ObservationBuffer(), RecordKeeper(MemoryRecords(), 100_000)
    journal = ObservingJournal(Silent(), buffer, keeper, Sessions(b"s" * 32))
    receipts = [Receipt(f"req-{n}", "rest", tenant="acme", session_key=f"acme\0{n % 50}") for n in range(NUM_REQUESTS)]
    began = time.process_time()
    for receipt in receipts:
        attempt = AttemptReceipt(lane="a" * 32, model="small")
        with attempt.ending():
            attempt.placed("worker-1", "worker.small@v1", 3)
            journal.placed(receipt, attempt)
            attempt.token_arrived()
        attempt.complete("ok", [Choice])
        receipt.attempts.append(attempt)
        journal.closed(receipt)
    settled = time.process_time()
    while (batch := buffer.take()) is not None:
        message = observation_pb2.ReportObservationsRequest()
        await fill(message, batch)
        message.SerializeToString()
    await keeper.write()
    ended = time.process_time()
    return (settled - began) / NUM_REQUESTS * 1e6, (ended - settled) / NUM_REQUESTS * 1e6


def main() -> None:
    """Print the best of some rounds."""
    rounds = [asyncio.run(measure()) for _ in range(ROUNDS)]
    print(f"while it settles: {min(now for now, _ in rounds):.1f} us a request")
    print(f"afterwards:       {min(later for _, later in rounds):.1f} us a request")


if __name__ == "__main__":
    main()
