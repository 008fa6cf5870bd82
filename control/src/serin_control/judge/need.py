"""What comes to a judge beside requests, and what it would need before it can decide. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Beside:
    """What else there is to compare.

    Attributes:
        num_golden: questions of the golden set, each asked once; 0: there is none.
        text_rate: share of the old version's requests that are scored on both versions.
        calibration_rate: share of them that are scored twice on the old version.
    """

    num_golden: int = 0
    text_rate: float = 0.0
    calibration_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one step would need.

    Attributes:
        samples: requests on the new version until it can be promoted.
        seconds: how long they take, at the rate and weight that were given.
        detectable: by metric, in its unit: the smallest tolerance that the step can show to be kept; infinite: none.
        sessions: sessions that make the requests.
        sessions_by_metric: sessions each metric needs at its tolerance.
        texts: texts that must be scored on both versions, and as many twice on the old one; they are the old version's,
            so they cost the new one's callers nothing. 0: scores are not judged.
    """

    samples: int
    seconds: float
    detectable: Mapping[str, float] = field(default_factory=dict)
    sessions: int = 0
    sessions_by_metric: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
