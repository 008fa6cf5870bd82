"""The parts of one tokenizer, put together from its model folder.

Knows which parts there are and in which order they start and end; nothing about processes, ports or control planes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from serin_mesh.identity import ArtifactUnreadable, vocabulary_digest

from serin_tokenizer_svc.chat import Chat
from serin_tokenizer_svc.encode_queue import EncodeQueue
from serin_tokenizer_svc.errors import FolderRefused
from serin_tokenizer_svc.folder import ModelFolder, read_folder
from serin_tokenizer_svc.grammar_pool import GrammarLimits, GrammarPool
from serin_tokenizer_svc.memory import give_back
from serin_tokenizer_svc.render_pool import RenderLimits, RenderPool
from serin_tokenizer_svc.tokenizer import Identity, Tokenizer
from serin_tokenizer_svc.vocabulary import Vocabulary


@asynccontextmanager
async def assembled(
    path: Path,
    *,
    model: str,
    version: str,
    limits: RenderLimits | None = None,
    grammar_limits: GrammarLimits | None = None,
) -> AsyncIterator[Tokenizer]:
    """A tokenizer that answers, while it is entered.

    Raises:
        FolderRefused: the model folder cannot be served; the message names the file.
    """
    folder, vocabulary, digest = await asyncio.to_thread(_read, path)
    identity = Identity(
        model=model,
        version=version,
        vocabulary_digest=digest,
        tokenizer_digest=folder.digest,
        has_chat_template="default" in folder.templates,
    )
    async with (
        RenderPool(folder.templates, limits or RenderLimits()) as pool,
        EncodeQueue(vocabulary.encode) as queue,
        GrammarPool(vocabulary.pieces, grammar_limits or GrammarLimits()) as grammars,
    ):
        chat = Chat(pool, queue, vocabulary, folder.special_tokens)
        await chat.learn()
        yield Tokenizer(identity, vocabulary, chat, queue, grammars)


def _read(path: Path) -> tuple[ModelFolder, Vocabulary, str]:
    try:
        digest = vocabulary_digest(path)
    except ArtifactUnreadable as error:
        raise FolderRefused(str(error)) from error
    give_back()  # in between, so that what stays is not scattered among what goes
    folder = read_folder(path)
    vocabulary = Vocabulary(folder)
    # Nobody needs the file's content any more; a large one is tens of megabytes.
    folder = replace(folder, tokenizer_json=b"")
    give_back()
    return folder, vocabulary, digest
