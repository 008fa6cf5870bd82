"""From settings to a model that serves: loaded in a thread, with progress, and ended in order.

Knows nothing about RPCs.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from serin_mesh import logs
from serin_mesh.identity import ArtifactUnreadable, vocabulary_digest
from serin_mesh.settings import SettingsError, mesh_secret

from serin_worker.config import BadConfig
from serin_worker.embedding.loop import EmbeddingLoop
from serin_worker.embedding.recipe import is_embedding_model
from serin_worker.embedding.serving import EmbeddingServing, num_places
from serin_worker.embedding.startup import load_encoder
from serin_worker.errors import ModelRefused, NotEnoughMemory
from serin_worker.grammars.opening import Grammars
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.loop import EngineLoop
from serin_worker.model import hub
from serin_worker.namespaces import Namespaces
from serin_worker.native.library import stop_building
from serin_worker.serving import Serving
from serin_worker.settings import WorkerSettings
from serin_worker.startup import Progress, Stage, load_engine

_STAGES: dict[Stage, tuple[str, float, float]] = {
    "hashing": ("reading weights", 0.0, 0.2),
    "building": ("building kernels", 0.2, 0.2),
    "loading": ("loading weights", 0.2, 0.4),
    "preparing": ("preparing weights", 0.4, 0.8),
    "checking": ("checking the model", 0.8, 1.0),
}
Say = Callable[[str, float], None]
T = TypeVar("T")


class StartCancelled(Exception):
    """The process was asked to stop while it loaded."""


@asynccontextmanager
async def serving(settings: WorkerSettings, say: Say) -> AsyncIterator[Serving | EmbeddingServing]:
    """A running engine or embedding model, as its folder says, while entered.

    Args:
        settings: what to load and how.
        say: called on this loop with what is being done and how far it is, 0 to 1.

    Raises:
        SettingsError: the model cannot be served, in one line.
    """
    folder = await _located(settings)
    served: AbstractAsyncContextManager[Serving | EmbeddingServing]
    served = _embedding(settings, folder, say) if is_embedding_model(folder) else _generating(settings, folder, say)
    async with served as running:
        yield running


@asynccontextmanager
async def _generating(settings: WorkerSettings, folder: Path, say: Say) -> AsyncIterator[Serving]:
    secret = _secret(settings)
    engine, about = await _loaded(
        settings, say, lambda progress: load_engine(str(folder), settings.engine_config(), progress)
    )
    vocabulary = await _vocabulary(settings, folder)
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


@asynccontextmanager
async def _embedding(settings: WorkerSettings, folder: Path, say: Say) -> AsyncIterator[EmbeddingServing]:
    encoder, about = await _loaded(
        settings, say, lambda progress: load_encoder(folder, settings.engine_config(), progress)
    )
    vocabulary = await _vocabulary(settings, folder)
    loop = EmbeddingLoop(
        encoder,
        about.bounds,
        max_batch_tokens=about.max_batch_tokens,
        max_num_waiting=settings.max_waiting,
        is_invariant=about.numerics == "invariant",
    )
    loop.start()
    logs.get().info(
        "embedding.ready",
        model=settings.model,
        precision=about.precision,
        numerics=about.numerics,
        dimensions=about.bounds.num_dimensions,
        context_length=about.bounds.max_tokens,
    )
    try:
        yield EmbeddingServing(
            loop=loop,
            about=about,
            vocabulary_digest=vocabulary,
            model=settings.model,
            version=settings.version,
            instance=settings.instance,
            max_num_inputs=num_places(settings.max_sequences, about.max_batch_tokens),
        )
    finally:
        await loop.stop()


async def _located(settings: WorkerSettings) -> Path:
    with _blaming(settings):
        return await asyncio.to_thread(hub.locate, settings.model_path)


async def _vocabulary(settings: WorkerSettings, folder: Path) -> str:
    with _blaming(settings):
        return await asyncio.to_thread(vocabulary_digest, folder)


async def _loaded(settings: WorkerSettings, say: Say, load: Callable[[Progress], T]) -> T:
    """What ``load`` makes, in a thread; its progress is said here."""
    running = asyncio.get_running_loop()
    is_cancelled = False
    said = ("", -1)

    def progress(stage: Stage, fraction: float) -> None:
        nonlocal said
        if is_cancelled:
            raise StartCancelled
        activity, start, end = _STAGES[stage]
        percent = int(100 * (start + fraction * (end - start)))
        if (activity, percent) != said:
            said = (activity, percent)
            running.call_soon_threadsafe(say, activity, percent / 100)

    try:
        with _blaming(settings):
            return await asyncio.to_thread(load, progress)
    finally:
        is_cancelled = True
        stop_building()


@contextmanager
def _blaming(settings: WorkerSettings) -> Iterator[None]:
    """Whatever is wrong with the model, or how it is to run, is the fault of a setting."""
    try:
        yield
    except NotEnoughMemory as error:
        told = error.told(settings.flag_of) + _in_the_file(settings, error)
        raise SettingsError(f"--model-path: '{settings.model_path}': {told}") from error
    except (ModelRefused, ArtifactUnreadable) as error:
        raise SettingsError(f"--model-path: '{settings.model_path}': {error}") from error
    except BadConfig as error:
        raise SettingsError(f"{settings.flag_of(error.field)}: {error.value}: accepted: {error.accepted}") from error


def _in_the_file(settings: WorkerSettings, error: NotEnoughMemory) -> str:
    """How the mesh's file spells what helps: a process does not know whether somebody types its flags."""
    keys = dict.fromkeys(settings.key_of(field) for remedy in error.remedies for field in remedy)
    return f" (in serin.yaml: {', '.join(keys)})" if keys else ""


def _secret(settings: WorkerSettings) -> bytes:
    if settings.mesh_secret_file is not None:
        return mesh_secret(settings)
    logs.get().warning("cache.private", why="no --mesh-secret-file: prefixes are found by this process alone")
    return secrets.token_bytes(32)
