"""A mesh that serves the demo model by several workers, so that some may be harmed. Knows only its declaration."""

from pathlib import Path

SMALL = "small"
NUM_WORKERS = 3
DRAIN_GRACE_S = 0.2
"""An answer of a second outlives it."""
_DEMO_MODEL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"


def crowd_of(kv_blocks: int = 1024) -> str:
    """Its `serin.yaml`."""
    return f"""\
models:
  {SMALL}:
    path: {_DEMO_MODEL}
    precision: float32
    numerics: invariant
    kv_blocks: {kv_blocks}
    workers: {NUM_WORKERS}
"""


def environment() -> dict[str, str]:
    """Its environment."""
    return {"SERIN_DRAIN_GRACE_S": str(DRAIN_GRACE_S)}
