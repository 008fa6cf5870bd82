"""Blocks of the paged KV cache: who holds which, and which prefixes can be shared.

Knows nothing about tensors, models or requests: a block is a number, a prefix is a key, an owner is a name to purge by.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from serin_worker.cache_log import CacheLog
from serin_worker.errors import OutOfBlocks


class BlockPool:
    """A fixed number of blocks, shared by reference count.

    A block whose last holder lets go keeps its prefix until it is reused, oldest first; blocks without a prefix are
    reused before that.
    """

    def __init__(self, num_blocks: int, log: CacheLog | None = None) -> None:
        self.num_blocks = num_blocks
        self.log = log or CacheLog()
        self._references = [0] * num_blocks
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._reclaimable: OrderedDict[int, None] = OrderedDict()
        self._prefix: dict[int, tuple[bytes, bytes]] = {}
        self._by_key: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds: blank ones and ones that only keep a prefix."""
        return len(self._blank) + len(self._reclaimable)

    @property
    def num_cached(self) -> int:
        """Blocks that a prefix can be found in, held or not."""
        return len(self._by_key)

    @property
    def usage(self) -> float:
        """Share of blocks held by a sequence, 0 to 1."""
        return 1.0 - self.num_free / self.num_blocks

    def can_allocate(self, num_blocks: int) -> bool:
        """Whether :meth:`allocate` of so many blocks succeeds now."""
        return num_blocks <= self.num_free

    def allocate(self, num_blocks: int) -> list[int]:
        """Take blocks for new tokens, one reference each.

        Raises:
            OutOfBlocks: fewer than ``num_blocks`` are free or reclaimable.
        """
        if not self.can_allocate(num_blocks):
            raise OutOfBlocks(f"{num_blocks} blocks asked for, {self.num_free} of {self.num_blocks} free")
        taken = [self._take_one() for _ in range(num_blocks)]
        for block in taken:
            self._references[block] = 1
        return taken

    def match(self, keys: Iterable[bytes]) -> list[int]:
        """Blocks that hold the longest run of ``keys`` from the first on. Takes no reference."""
        found = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def num_reclaimable_in(self, blocks: Iterable[int]) -> int:
        """How many of these blocks nobody holds: sharing them takes them from :attr:`num_free`."""
        return sum(1 for block in blocks if self._references[block] == 0)

    def freed_by(self, references: Iterable[int]) -> set[int]:
        """Blocks that nobody would hold any more if these references, one for each mention, were given back."""
        return {block for block, count in Counter(references).items() if count == self._references[block]}

    def share(self, blocks: Iterable[int]) -> None:
        """Take one more reference to each block, held or reclaimable."""
        for block in blocks:
            if self._references[block] == 0:
                del self._reclaimable[block]
            self._references[block] += 1

    def is_shared(self, block: int) -> bool:
        """Whether a writer must copy the block first."""
        return self._references[block] > 1

    def release(self, blocks: Sequence[int]) -> None:
        """Give back one reference to each block of a sequence, last block first: a prefix outlives what follows it."""
        for block in reversed(blocks):
            self._references[block] -= 1
            assert self._references[block] >= 0, f"block {block} was released more often than taken"
            if self._references[block] == 0:
                if block in self._prefix:
                    self._reclaimable[block] = None
                else:
                    self._blank.append(block)

    def publish(self, owner: bytes, blocks: Sequence[int], keys: Sequence[bytes]) -> None:
        """Let full, computed blocks be found by key. A key that is already found elsewhere stays there."""
        fresh = []
        for block, key in zip(blocks, keys, strict=True):
            if key not in self._by_key and block not in self._prefix:
                self._by_key[key] = block
                self._prefix[block] = (key, owner)
                fresh.append(key)
        self.log.stored(fresh)

    def withdraw(self, blocks: Iterable[int]) -> None:
        """Let blocks no longer be found: what they hold is not to be trusted."""
        self.log.removed([key for block in blocks if (key := self._forget(block)) is not None])

    def purge(self, owner: bytes) -> int:
        """Forget every prefix of an owner; returns how many. Whoever holds the blocks keeps them."""
        doomed = [block for block, (_, of) in self._prefix.items() if of == owner]
        self.withdraw(doomed)
        return len(doomed)

    def _take_one(self) -> int:
        if self._blank:
            return self._blank.pop()
        block, _ = self._reclaimable.popitem(last=False)
        key, _ = self._prefix.pop(block)
        del self._by_key[key]
        self.log.removed([key])
        return block

    def _forget(self, block: int) -> bytes | None:
        prefix = self._prefix.pop(block, None)
        if prefix is None:
            return None
        del self._by_key[prefix[0]]
        if self._references[block] == 0:
            del self._reclaimable[block]
            self._blank.append(block)
        return prefix[0]
