"""Softmax over pages, part by part, as functions of Triton's: what its kernels have in common.

What a row computes is fixed by its position alone, whichever kernel it meets: keys are visited in tiles that begin at
multiples of the tile's size, tiles are summed up by splits that begin at fixed positions, and splits are folded
together in their order. A tile or split that a row does not see changes none of its bits. Kernels have to be launched
with ``EXACT``: a compiler contracts a product and a sum to one rounding here and not there; ``tl.fma`` says where.

Knows nothing about sequences, nor whose rows they are.
"""

import triton
import triton.language as tl

_NO_POSITION = tl.constexpr(2**30)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def split_start(split, FIRST_SPLIT: tl.constexpr):
    """Where a split of the keys begins: sixteen of the first size, then eight of twice the size, and so on.

    As many parts as a device has use for while a context is short, and few partial results of a long one. Positions are
    numbers with three bits behind the first one, so to say. A plain function of numbers too: ``split_start.fn``.
    """
    octave = max(split // 8 - 1, 0)
    return ((split - 8 * octave) * FIRST_SPLIT) << octave


@triton.jit
def attend_range(
    q,
    positions,
    keys,
    values,
    table,
    kv_head,
    start,
    seen,
    end,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Peaks, sums and undivided outputs over keys [start, end); all rows see those before ``seen``.

    ``start`` and ``seen`` are multiples of the tile.
    """
    peaks = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    outputs = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    if WINDOW == 0:
        seen = tl.minimum(tl.maximum(seen, start), end // BLOCK_N * BLOCK_N)
        for first in range(start, seen, BLOCK_N):
            peaks, sums, outputs = _attend_tile(
                q,
                positions,
                peaks,
                sums,
                outputs,
                keys,
                values,
                table,
                kv_head,
                first,
                end,
                scale,
                NUM_KV_HEADS,
                KEY_DIM,
                VALUE_DIM,
                BLOCK_SIZE,
                WINDOW,
                SOFTCAP,
                BLOCK_N,
                BLOCK_K,
                BLOCK_V,
                WIDEN,
                False,
            )
        start = seen
    for first in range(start, end, BLOCK_N):
        peaks, sums, outputs = _attend_tile(
            q,
            positions,
            peaks,
            sums,
            outputs,
            keys,
            values,
            table,
            kv_head,
            first,
            end,
            scale,
            NUM_KV_HEADS,
            KEY_DIM,
            VALUE_DIM,
            BLOCK_SIZE,
            WINDOW,
            SOFTCAP,
            BLOCK_N,
            BLOCK_K,
            BLOCK_V,
            WIDEN,
            True,
        )
    return peaks, sums, outputs


@triton.jit
def fold(peaks, sums, outputs, next_peaks, next_sums, next_outputs):
    """Two partial softmaxes as one; an empty one changes no bit of the other."""
    highest = tl.maximum(peaks, next_peaks)
    floor = tl.where(highest == float("-inf"), 0.0, highest)
    decay, next_decay = tl.exp2(peaks - floor), tl.exp2(next_peaks - floor)
    sums = tl.fma(sums, decay, next_sums * next_decay)
    outputs = tl.fma(outputs, tl.broadcast_to(decay[:, None], outputs.shape), next_outputs * next_decay[:, None])
    return highest, sums, outputs


@triton.jit
def finished(peaks, sums, outputs, sinks, heads):
    """The softmax divided, once a sink has taken its share."""
    if sinks is not None:
        sink = tl.load(sinks + heads) * _LOG2_E
        highest = tl.maximum(peaks, sink)
        decay = tl.exp2(peaks - highest)
        sums = tl.fma(sums, decay, tl.exp2(sink - highest))
        outputs = outputs * decay[:, None]
    # Rows that see nothing, those that fill up a tile, are not stored; they shall not divide by zero either.
    return outputs / tl.where(sums == 0.0, 1.0, sums)[:, None]


@triton.jit
def load_tile(base, offsets, is_read, DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """Rows of ``DIM`` numbers at offsets, zeros beyond and where nothing is read."""
    dims = tl.arange(0, BLOCK_D)[None, :]
    pointers = base + offsets[:, None] + dims
    if MASKED:
        return tl.load(pointers, mask=is_read[:, None] & (dims < DIM), other=0.0)
    elif DIM != BLOCK_D:  # noqa: RET505 - a branch of the compiler's, only one of which exists
        return tl.load(pointers, mask=dims < DIM, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def _attend_tile(
    q,
    positions,
    peaks,
    sums,
    outputs,
    keys,
    values,
    table,
    kv_head,
    first,
    end,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    WIDEN: tl.constexpr,
    MASKED: tl.constexpr,
):
    """One tile of keys in an online softmax. What no row sees is not read: an earlier owner's NaN may be there.

    ``scale`` turns scores into exponents of two; with a softcap, into what goes into tanh.
    """
    at = first + tl.arange(0, BLOCK_N)
    is_read = at < end
    if WINDOW:
        oldest = tl.min(tl.where(positions < 0, _NO_POSITION, positions), 0) - WINDOW
        is_read &= at > oldest
    if MASKED:
        blocks = tl.load(table + at // BLOCK_SIZE, mask=is_read, other=0).to(tl.int64)
    else:
        blocks = tl.load(table + at // BLOCK_SIZE).to(tl.int64)
    place = (blocks * NUM_KV_HEADS + kv_head) * BLOCK_SIZE + at % BLOCK_SIZE
    k = load_tile(keys, place * KEY_DIM, is_read, KEY_DIM, BLOCK_K, MASKED)
    scores = _product(q, tl.trans(k), WIDEN)
    factor = scale
    if SOFTCAP != 0.0:
        # tanh of |x| by one power of two: nothing overflows, and large scores are the cap exactly.
        power = tl.exp2(tl.abs(scores * scale) * (-2.0 * _LOG2_E))
        tanh = (1.0 - power) / (1.0 + power)
        scores = tl.where(scores * scale < 0, -tanh, tanh)
        factor = SOFTCAP * _LOG2_E
    if MASKED:
        is_seen = at[None, :] <= positions[:, None]
        if WINDOW:
            is_seen &= at[None, :] > positions[:, None] - WINDOW
        scores = tl.where(is_seen, scores, float("-inf"))
    highest = tl.maximum(peaks, tl.max(scores, 1) * factor)
    floor = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(tl.fma(scores, tl.full(scores.shape, factor, tl.float32), -floor[:, None]))
    decay = tl.exp2(peaks - floor)
    sums = tl.fma(sums, decay, tl.sum(weights, 1))
    v = load_tile(values, place * VALUE_DIM, is_read, VALUE_DIM, BLOCK_V, MASKED)
    outputs = _product(weights.to(v.dtype), v, WIDEN, outputs * decay[:, None])
    return highest, sums, outputs


@triton.jit
def _product(a, b, WIDEN: tl.constexpr, c=None):
    """Matrix product in the numbers' own type with float32 sums. WIDEN: the interpreter multiplies no bfloat16."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, c, input_precision="ieee")
