"""From settings to an engine that serves: loaded in a thread, with progress, and ended in order.

Knows nothing about RPCs.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serin_mesh import logs
from serin_mesh.identity import ArtifactUnreadable, vocabulary_digest
from serin_mesh.settings import SettingsError, mesh_secret

from serin_worker.config import BadConfig
from serin_worker.description import EngineDescription
from serin_worker.engine import Engine
from serin_worker.errors import ModelRefused
from serin_worker.grammars.opening import Grammars
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.loop import EngineLoop
from serin_worker.namespaces import Namespaces
from serin_worker.serving import Serving
from serin_worker.settings import WorkerSettings
from serin_worker.startup import Stage, load_engine

_STAGES: dict[Stage, tuple[str, float, float]] = {
    "hashing": ("reading weights", 0.0, 0.2),
    "loading": ("loading weights", 0.2, 0.4),
    "preparing": ("preparing weights", 0.4, 0.8),
    "checking": ("checking the model", 0.8, 1.0),
}
Say = Callable[[str, float], None]


class StartCancelled(Exception):
    """The process was asked to stop while it loaded."""


@asynccontextmanager
async def serving(settings: WorkerSettings, say: Say) -> AsyncIterator[Serving]:
    """A running engine while entered.

    Args:
        settings: what to load and how.
        say: called on this loop with what is being done and how far it is, 0 to 1.

    Raises:
        SettingsError: the model cannot be served, in one line.
    """
    secret = _secret(settings)
    engine, about, vocabulary = await _load(settings, say)
    loop = EngineLoop(engine, max_num_requests=settings.max_sequences + settings.max_waiting)
    loop.start()
    log = logs.get()
    log.info(
        "engine.ready",
        model=settings.model,
        precision=about.precision,
        numerics=about.numerics,
        numerics_class=about.numerics_class,
        kv_blocks=about.num_blocks,
        kv_bytes=about.num_blocks * about.block_bytes,
        context_length=about.context_length,
    )
    grammars = Grammars(lambda: GrammarVocabulary(about.folder, about.vocabulary_size, engine.bounds.end_ids))
    try:
        yield Serving(
            loop=loop,
            about=about,
            vocabulary_digest=vocabulary,
            namespaces=Namespaces(secret, about.kv_digest),
            grammars=grammars,
            model=settings.model,
            version=settings.version,
            instance=settings.instance,
        )
    finally:
        await loop.stop()


async def _load(settings: WorkerSettings, say: Say) -> tuple[Engine, EngineDescription, str]:
    running = asyncio.get_running_loop()
    is_cancelled = False
    said = -1

    def progress(stage: Stage, fraction: float) -> None:
        nonlocal said
        if is_cancelled:
            raise StartCancelled
        activity, start, end = _STAGES[stage]
        percent = int(100 * (start + fraction * (end - start)))
        if percent != said:
            said = percent
            running.call_soon_threadsafe(say, activity, percent / 100)

    def load() -> tuple[Engine, EngineDescription, str]:
        try:
            engine, about = load_engine(settings.model_path, settings.engine_config(), progress)
            return engine, about, vocabulary_digest(about.folder)
        except (ModelRefused, ArtifactUnreadable) as error:
            raise SettingsError(f"--model-path: '{settings.model_path}': {error}") from error
        except BadConfig as error:
            raise SettingsError(f"--max-batched-tokens: {error}") from error

    try:
        return await asyncio.to_thread(load)
    finally:
        is_cancelled = True


def _secret(settings: WorkerSettings) -> bytes:
    if settings.mesh_secret_file is not None:
        return mesh_secret(settings)
    logs.get().warning("cache.private", why="no --mesh-secret-file: prefixes are found by this process alone")
    return secrets.token_bytes(32)
