"""The frames of one answer while it is made: one writer, any number of readers, each from the beginning.

Knows nothing about what a frame is.
"""

import asyncio
from collections.abc import AsyncIterator


class Transcript:
    """Frames in their order, then an end or a failure.

    Args:
        account: what making them is billed as, 128 random bits; whoever makes the answer anew, as this maker's gateway
            is gone, sees that it is not billed.
    """

    def __init__(self, account: str = "") -> None:
        self.account = account
        self.frames: list[bytes] = []
        self.num_bytes = 0
        self.is_billed = False
        """Whether what made it has used anything that is billed; known when it is over."""
        self.is_over = False
        self.failure: BaseException | None = None
        self._changed = asyncio.Event()

    def add(self, frame: bytes) -> None:
        """What was made last."""
        self.frames.append(frame)
        self.num_bytes += len(frame)
        self._tell()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come; with a failure readers raise it behind the last frame."""
        self.is_over, self.failure = True, failure
        self._tell()

    async def changed(self) -> None:
        """Wait for the next frame or the end."""
        await self._changed.wait()

    async def follow(self) -> AsyncIterator[bytes]:
        """All frames, as they come.

        Raises:
            BaseException: what :meth:`end` was given.
        """
        at = 0
        while True:
            for frame in self.frames[at:]:
                at += 1
                yield frame
            if at < len(self.frames):
                continue
            if self.is_over:
                if self.failure is not None:
                    raise self.failure
                return
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
