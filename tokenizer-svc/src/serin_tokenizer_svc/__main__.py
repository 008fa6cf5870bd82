"""The tokenizer service as a process: ``python -m serin_tokenizer_svc --model small --model-path DIR``."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from serin.control.v1 import registry_pb2
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.metrics import registry
from serin_mesh.readiness import Condition, Readiness, State
from serin_mesh.server import StartupFailed, run_main, serve
from serin_mesh.settings import SettingsError, load_settings

from serin_tokenizer_svc.assembly import assembled
from serin_tokenizer_svc.errors import FolderRefused
from serin_tokenizer_svc.folder import check_name, find_folder
from serin_tokenizer_svc.grammar_pool import GrammarLimits
from serin_tokenizer_svc.metrics import CallTimes, TokenizerCollector
from serin_tokenizer_svc.render_pool import RenderLimits
from serin_tokenizer_svc.service import TokenizerService
from serin_tokenizer_svc.settings import TokenizerSettings

PROGRAM = "serin-tokenizer-svc"


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop; the exit status says how it went."""
    return run_main(PROGRAM, _serve(load_settings(TokenizerSettings, argv, PROGRAM)))


@contextmanager
def _blaming_model_path(settings: TokenizerSettings) -> Iterator[None]:
    try:
        yield
    except FolderRefused as error:
        raise SettingsError(
            f"--model-path: '{settings.model_path}': {error}: accepted: a model folder with its tokenizer"
        ) from error


async def _serve(settings: TokenizerSettings) -> None:
    service = TokenizerService()
    readiness = Readiness()

    def follow(condition: Condition) -> None:
        if condition.state is State.DRAINING:
            service.drain()

    with _blaming_model_path(settings):
        check_name(settings.model_path)

    async with AsyncExitStack() as stack:

        async def startup() -> None:
            readiness.starting("reading the tokenizer")
            with _blaming_model_path(settings):
                folder = await asyncio.to_thread(find_folder, settings.model_path)
                tokenizer = await stack.enter_async_context(
                    assembled(
                        folder,
                        model=settings.model,
                        version=settings.version,
                        limits=_limits(settings),
                        grammar_limits=_grammar_limits(settings),
                    )
                )
            registry().register(TokenizerCollector(tokenizer, service.tally))
            service.attach(tokenizer, CallTimes(registry()))
            about = tokenizer.identity
            readiness.ready(
                digests=registry_pb2.Digests(artifact=about.tokenizer_digest, vocabulary=about.vocabulary_digest),
                capacity=registry_pb2.Capacity(group_size=1),
            )

        readiness.watch(follow)
        try:
            await serve(
                settings,
                "tokenizer",
                lambda server: tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server),
                readiness=readiness,
                load=service.load,
                announce=Announcement(model=settings.model),
                startup=startup,
            )
        except StartupFailed as failed:
            if isinstance(failed.__cause__, SettingsError):  # a damaged folder is a bad setting, found late
                raise failed.__cause__ from failed.__cause__.__cause__
            raise


def _limits(settings: TokenizerSettings) -> RenderLimits:
    return RenderLimits(
        timeout_s=settings.render_timeout_s,
        output_chars=settings.render_output_chars,
        memory_bytes=settings.render_memory_bytes,
        num_processes=settings.render_processes,
    )


def _grammar_limits(settings: TokenizerSettings) -> GrammarLimits:
    return GrammarLimits(
        timeout_s=settings.grammar_timeout_s,
        memory_bytes=settings.grammar_memory_bytes,
        num_processes=settings.grammar_processes,
        cache_bytes=settings.grammar_cache_bytes,
    )


if __name__ == "__main__":
    sys.exit(main())
