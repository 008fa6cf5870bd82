"""Which worker holds which KV blocks, as far as the workers say; and who holds the longest prefix of a prompt.

Never trusted blindly: a wrong entry costs speed, not correctness. Knows nothing about streams or networks: a worker
is an endpoint, a block is a key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from serin_mesh.identity import block_keys

from serin_cache_svc.asked import Prompt

MAX_HOLDERS = 16
MAX_BLOCKS = 2_000_000
"""Blocks remembered of one worker; what is beyond them is not found."""


@dataclass(slots=True)
class WorkerBlocks:
    """What one worker holds."""

    model: str
    kv_digest: str
    block_size: int
    keys: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that holds the first ``num_tokens`` positions of a prompt."""

    endpoint: str
    num_tokens: int


class PrefixIndex:
    """Blocks of all workers."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerBlocks] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks remembered of all workers together."""
        return sum(len(worker.keys) for worker in self._workers.values())

    @property
    def num_workers(self) -> int:
        """Workers whose blocks are known."""
        return len(self._workers)

    def replace(self, endpoint: str, blocks: WorkerBlocks) -> None:
        """Take a worker's whole snapshot; whatever was known of it before is void."""
        self._workers[endpoint] = blocks

    def add(self, endpoint: str, keys: Iterable[bytes]) -> None:
        """Note blocks that a worker stored."""
        worker = self._workers[endpoint]
        if len(worker.keys) < MAX_BLOCKS:
            worker.keys.update(keys)

    def remove(self, endpoint: str, keys: Iterable[bytes]) -> None:
        """Note blocks that a worker no longer holds."""
        self._workers[endpoint].keys.difference_update(keys)

    def forget(self, endpoint: str) -> None:
        """Forget a worker, if it is known."""
        self._workers.pop(endpoint, None)

    def holders(self, model: str, kv_digest: str, block_size: int, namespace: bytes, prompt: Prompt) -> list[Holder]:
        """Workers of a model that hold at least the prompt's first block, longest prefix first."""
        candidates = {
            endpoint: worker.keys
            for endpoint, worker in self._workers.items()
            if worker.model == model and worker.kv_digest == kv_digest and worker.block_size == block_size
        }
        held = dict.fromkeys(candidates, 0)
        if not candidates:
            return []
        for key in block_keys(namespace, prompt.token_ids, block_size, prompt.media):
            candidates = {endpoint: keys for endpoint, keys in candidates.items() if key in keys}
            if not candidates:
                break
            for endpoint in candidates:
                held[endpoint] += block_size
        found = [Holder(endpoint, num_tokens) for endpoint, num_tokens in held.items() if num_tokens]
        return sorted(found, key=lambda holder: (-holder.num_tokens, holder.endpoint))[:MAX_HOLDERS]
