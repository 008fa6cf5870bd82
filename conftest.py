"""What holds for the tests of every room: plain logs, no haste, little garbage, and kernels for GPUs without one.

structlog's own default draws every exception with the variables of each frame, which takes a second of CPU each.
Hypothesis' own default fails an example that takes longer than 0.2 s, and a test whose examples are slow to draw: on a
busy machine that says something about its neighbours alone. What hangs ends by pytest's timeout.

What the collection of tests made (libraries, modules, some millions of objects) stays to the end: Python looks for
garbage among what the tests themselves make alone. Otherwise that took a third of the time of all tests.

Without a GPU Triton's kernels are run by its interpreter. Triton asks for that when it is imported, which torch or
transformers may do long before the tests that need it.
"""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from serin_mesh.garbage import keep_what_is_loaded

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

gc.disable()
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, but not often: there is little."""
    keep_what_is_loaded()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """How a test has logs written holds for it alone, whichever tests its process runs next."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
