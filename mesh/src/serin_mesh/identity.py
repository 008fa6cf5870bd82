"""What may meet what: digests of vocabularies and weights, cache namespaces, block keys.

Every service that compares artifacts uses these functions, so that two services agree because they computed the same
thing, never because they were told the same string. Depends on the standard library alone; knows no gRPC, settings,
tensors or text.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DIGEST_BYTES = 16
"""Length of every digest and block key: BLAKE2b-128 (RFC 7693)."""


class ArtifactUnreadable(Exception):
    """A model folder lacks a file that an identity is computed from, or the file is damaged."""


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """An image or a sound inside a prompt: ``length`` placeholder positions filled from content with this digest."""

    digest: bytes
    kind: str
    length: int


def digest_bytes(*parts: bytes) -> bytes:
    """BLAKE2b-128 over length-prefixed parts, so that no two different lists of parts can collide by concatenation."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(struct.pack("<Q", len(part)))
        state.update(part)
    return state.digest()


def digest_json(value: object) -> str:
    """Hex digest of a JSON value in canonical form (sorted keys, no spaces)."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hex()


def vocabulary_digest(folder: Path) -> str:
    """Hex digest of what token ids mean: the vocabulary, the added tokens and the decoder of a model folder.

    Merges, normalisation and the chat template are left out: they decide which ids a text becomes, not which bytes an
    id stands for, so a fix to one of them needs no new worker.

    Raises:
        ArtifactUnreadable: the folder has no ``tokenizer.json``, or it is not a tokenizer.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = json.loads(path.read_bytes())
        vocabulary = tokenizer["model"]["vocab"]
        added = sorted([t["id"], t["content"], bool(t["special"])] for t in tokenizer.get("added_tokens") or ())
    except FileNotFoundError as error:
        raise ArtifactUnreadable(f"{path}: not found; a model folder needs its tokenizer.json") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactUnreadable(f"{path}: not a readable tokenizer: {error!r}") from error
    return digest_json({"vocab": vocabulary, "added": added, "decoder": tokenizer.get("decoder")})


def kv_digest(*, weights: str, precision: str, layout: str, engine_epoch: str, adapter: str = "") -> str:
    """Hex digest of everything that decides the numbers in a KV cache.

    Args:
        weights: digest of the weight files and the model's configuration.
        precision: dtype or quantization the model runs in, for example ``"float32"``.
        layout: block size and order of the cached tensors.
        engine_epoch: name of the arithmetic; bumped whenever computed KV may differ.
        adapter: digest of the adapter's content; empty for none.
    """
    return digest_json(
        {"weights": weights, "precision": precision, "layout": layout, "epoch": engine_epoch, "adapter": adapter}
    )


def lane_digest(model: str, members: Mapping[str, tuple[str, str]]) -> str:
    """Hex digest that names a lane: a model and, per service, its (version, artifact digest)."""
    return digest_json({"model": model, "members": {k: list(v) for k, v in members.items()}})


def cache_namespace(mesh_secret: bytes, *, cache_group: str, kv: str, salt: str = "") -> bytes:
    """Root of all block keys of one cache group on one KV digest (HMAC-SHA256, cut to 16 bytes).

    Without the mesh secret nobody can compute, and so nobody can probe, another group's namespace. A caller's ``salt``
    only narrows its own group.
    """
    message = digest_bytes(cache_group.encode(), kv.encode(), salt.encode())
    return hmac.new(mesh_secret, b"serin.cache.namespace" + message, hashlib.sha256).digest()[:DIGEST_BYTES]


def block_key(parent: bytes, token_ids: Sequence[int], media: Sequence[bytes] = ()) -> bytes:
    """Key of one KV block: its parent's key, the ids inside it, the digests of media that overlap it.

    ``parent`` is the key of the block before, or the namespace for the first block. ``media`` are digests that tell
    the media's content and place; :func:`block_keys` makes them.
    """
    ids = struct.pack(f"<{len(token_ids)}I", *token_ids)
    return digest_bytes(parent, ids, *media)


def block_keys(
    namespace: bytes, token_ids: Sequence[int], block_size: int, media: Sequence[tuple[int, MediaSpan]] = ()
) -> Iterator[bytes]:
    """Keys of all *full* blocks of a prompt, first to last.

    Args:
        namespace: from :func:`cache_namespace`.
        token_ids: ids of the prompt; positions covered by media hold any placeholder, which has no effect.
        block_size: tokens a block, at least 1.
        media: (first position, span) pairs, in order of position.
    """
    parent = namespace
    ids = _blank_media(token_ids, media) if media else token_ids
    for start in range(0, len(ids) - block_size + 1, block_size):
        end = start + block_size
        inside = [_place(span, at - start) for at, span in media if at < end and at + span.length > start]
        parent = block_key(parent, ids[start:end], inside)
        yield parent


def _blank_media(token_ids: Sequence[int], media: Sequence[tuple[int, MediaSpan]]) -> Sequence[int]:
    """The ids with every position that media cover set to 0, whatever placeholder stood there."""
    ids = list(token_ids)
    for at, span in media:
        end = min(at + span.length, len(ids))
        ids[at:end] = [0] * (end - at)
    return ids


def _place(span: MediaSpan, offset: int) -> bytes:
    """Digest of a piece of media and where it lies relative to a block's first position (before it: negative)."""
    return digest_bytes(span.digest, span.kind.encode(), struct.pack("<qQ", offset, span.length))
