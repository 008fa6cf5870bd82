"""What the service has done since start. Knows nothing about how it is reported."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts of tokens, streams and failures."""

    num_encoded: int = 0
    num_detokenized: int = 0
    num_failures: int = 0
    num_streams: int = 0
