"""What makes two requests the same: prompt, sampling, grammar, stop strings, and the namespace they live in.

Knows nothing about protobuf or stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serin_mesh.identity import MediaSpan, block_key, cache_namespace, digest_json


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as positions: ids, with placeholders where media is.

    Attributes:
        token_ids: one for each position.
        media: first position and span of each image or sound, in order.
    """

    token_ids: tuple[int, ...]
    media: tuple[tuple[int, MediaSpan], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as far as its answer depends on it.

    Attributes:
        cache_group: whose it is; empty: nobody's, so nothing is shared.
        cache_salt: narrows the group.
        kv_digest: what computes the answer.
        vocabulary_digest: what the ids mean.
        prompt: the prompt.
        sampling: how tokens are chosen, defaults filled in, by name.
        num_choices: choices asked for.
        grammar: kind and text of the constraint on the output.
        stop_strings: strings that end the answer.
    """

    cache_group: str
    cache_salt: str
    kv_digest: str
    vocabulary_digest: str
    prompt: Prompt
    sampling: Mapping[str, object]
    num_choices: int
    grammar: tuple[int, str]
    stop_strings: tuple[str, ...]

    @property
    def is_deterministic(self) -> bool:
        """Whether another run would choose the same tokens."""
        return self.sampling["temperature"] == 0 or self.sampling["seed"] is not None

    def namespace(self, secret: bytes) -> bytes:
        """Root of this group's keys on this KV digest."""
        return cache_namespace(secret, cache_group=self.cache_group, kv=self.kv_digest, salt=self.cache_salt)

    def digest(self, secret: bytes) -> bytes:
        """Key of the answer: equal for equal requests of one namespace, unguessable from any other."""
        keyed = dict(self.sampling)
        if keyed["temperature"] == 0:
            keyed["seed"] = None  # nothing is drawn
        about = {
            "vocabulary": self.vocabulary_digest,
            "sampling": keyed,
            "num_choices": self.num_choices,
            "grammar": list(self.grammar),
            "stop_strings": list(self.stop_strings),
            "media": [[at, span.kind, span.length] for at, span in self.prompt.media],
        }
        media = [span.digest for _, span in self.prompt.media]
        return block_key(self.namespace(secret), self.prompt.token_ids, [*media, digest_json(about).encode()])
