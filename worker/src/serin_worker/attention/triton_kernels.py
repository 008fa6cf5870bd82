"""Paged attention as Triton kernels: rows are written, prompts attend, decodes attend by splits that are merged.

Every kernel is launched over a grid that follows from shapes, and reads on the device whose rows are where, so that a
CUDA graph can hold it. A head's keys of a block lie together: pages are [blocks, heads, block size, dim].

Knows nothing about layers, or who launches it.
"""

import triton
import triton.language as tl

from serin_worker.attention.triton_softmax import attend_range, finished, fold, load_tile, split_start

_SEARCHED = tl.constexpr(256)
"""Sequences that a program looks through at once for its own."""


@triton.jit(do_not_specialize=["num_rows", "table_stride"])
def write_rows(
    keys,
    values,
    key,
    value,
    row_sequences,
    row_positions,
    tables,
    num_rows,
    table_stride,
    key_row_stride,
    key_head_stride,
    value_row_stride,
    value_head_stride,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Put keys and values into their pages; grid [rows * kv heads // block, rounded up]."""
    lanes = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    rows, heads = lanes // NUM_KV_HEADS, lanes % NUM_KV_HEADS
    sequences = tl.load(row_sequences + rows, mask=rows < num_rows, other=-1)
    is_row = sequences >= 0
    positions = tl.load(row_positions + rows, mask=is_row, other=0)
    place = sequences.to(tl.int64) * table_stride + positions // BLOCK_SIZE
    blocks = tl.load(tables + place, mask=is_row, other=0).to(tl.int64)
    place = (blocks * NUM_KV_HEADS + heads) * BLOCK_SIZE + positions % BLOCK_SIZE
    rows = rows.to(tl.int64)

    dims = tl.arange(0, BLOCK_K)[None, :]
    mask = is_row[:, None] & (dims < KEY_DIM)
    found = tl.load(key + (rows * key_row_stride + heads * key_head_stride)[:, None] + dims, mask=mask)
    tl.store(keys + place[:, None] * KEY_DIM + dims, found, mask=mask)

    dims = tl.arange(0, BLOCK_V)[None, :]
    mask = is_row[:, None] & (dims < VALUE_DIM)
    found = tl.load(value + (rows * value_row_stride + heads * value_head_stride)[:, None] + dims, mask=mask)
    tl.store(values + place[:, None] * VALUE_DIM + dims, found, mask=mask)


@triton.jit(do_not_specialize=["num_sequences", "table_stride"])
def attend_prompts(
    out,
    query,
    keys,
    values,
    sinks,
    starts,
    contexts,
    tables,
    num_sequences,
    table_stride,
    query_row_stride,
    query_head_stride,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    FIRST_SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """FlashAttention-2 over pages for sequences of two new rows and more; grid [rows // block + sequences, kv heads].

    A program has a block of one sequence's rows, and of each the query heads that share its keys. ``FIRST_SPLIT`` 0:
    keys are summed up from the first to the last, not by splits.
    """
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    # The last rows of a sequence see the most keys: they go first.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = tl.program_id(1)
    # Blocks of sequence s are counted from starts[s] // BLOCK_Q + s on, which leaves room for each one's last block.
    sequence = tl.full([], -1, tl.int32)
    for first in range(0, num_sequences, _SEARCHED):
        candidates = first + tl.arange(0, _SEARCHED)
        exists = candidates < num_sequences
        begins = tl.load(starts + candidates, mask=exists, other=0) // BLOCK_Q + candidates
        sequence += tl.sum((exists & (begins <= program)).to(tl.int32), 0)
    first_row = tl.load(starts + sequence)
    num_new = tl.load(starts + sequence + 1) - first_row
    block_start = (program - first_row // BLOCK_Q - sequence) * BLOCK_Q
    if (num_new < 2) | (block_start >= num_new):
        return

    lanes = tl.arange(0, BLOCK_M)
    rows = block_start + lanes // GROUP
    heads = kv_head * GROUP + lanes % GROUP
    is_row = (lanes < BLOCK_Q * GROUP) & (rows < num_new)
    before = tl.load(contexts + sequence) - num_new
    positions = tl.where(is_row, before + rows, -1)
    first_position = before + block_start
    end = before + tl.minimum(block_start + BLOCK_Q, num_new)

    places = (first_row + rows).to(tl.int64)
    q = load_tile(query, places * query_row_stride + heads * query_head_stride, is_row, KEY_DIM, BLOCK_K, True)
    q = q.to(keys.dtype.element_ty)
    table = tables + sequence.to(tl.int64) * table_stride
    start = 0
    if WINDOW:
        start = tl.maximum(first_position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    # Up to here every row sees every key.
    seen = (first_position + 1) // BLOCK_N * BLOCK_N

    peaks = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    outputs = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    if FIRST_SPLIT:
        split = 1
        while split_start(split, FIRST_SPLIT) <= start:
            split += 1
        begin = start
        while begin < end:
            finish = tl.minimum(split_start(split, FIRST_SPLIT), end)
            peak, total, output = attend_range(
                q,
                positions,
                keys,
                values,
                table,
                kv_head,
                begin,
                seen,
                finish,
                scale,
                NUM_KV_HEADS,
                KEY_DIM,
                VALUE_DIM,
                BLOCK_SIZE,
                WINDOW,
                SOFTCAP,
                BLOCK_M,
                BLOCK_N,
                BLOCK_K,
                BLOCK_V,
                WIDEN,
            )
            peaks, sums, outputs = fold(peaks, sums, outputs, peak, total, output)
            begin = finish
            split += 1
    else:
        peaks, sums, outputs = attend_range(
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
            NUM_KV_HEADS,
            KEY_DIM,
            VALUE_DIM,
            BLOCK_SIZE,
            WINDOW,
            SOFTCAP,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            BLOCK_V,
            WIDEN,
        )

    dims = tl.arange(0, BLOCK_V)[None, :]
    outputs = finished(peaks, sums, outputs, sinks, heads)
    offsets = (places * (NUM_KV_HEADS * GROUP) + heads)[:, None] * VALUE_DIM + dims
    tl.store(out + offsets, outputs.to(out.dtype.element_ty), mask=is_row[:, None] & (dims < VALUE_DIM))


@triton.jit(do_not_specialize=["table_stride", "num_splits"])
def attend_decodes(
    partial_outputs,
    partial_sums,
    query,
    keys,
    values,
    starts,
    contexts,
    tables,
    table_stride,
    num_splits,
    query_row_stride,
    query_head_stride,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    FIRST_SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Flash-decoding's first half, for sequences of one new row; grid [sequences, kv heads, programs for splits].

    Leaves each split's output, not yet divided, [sequences, heads, splits, BLOCK_V], and its peak and sum [..., 2].
    """
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    row = tl.load(starts + sequence)
    end = tl.load(contexts + sequence)
    split = tl.program_id(2)
    first = split_start(split, FIRST_SPLIT)
    if (tl.load(starts + sequence + 1) - row != 1) | (first >= end):
        return
    lanes = tl.arange(0, BLOCK_M)
    heads = kv_head * GROUP + lanes
    is_row = lanes < GROUP
    positions = tl.where(is_row, end - 1, -1)
    place = row.to(tl.int64) * query_row_stride
    q = load_tile(query, place + heads * query_head_stride, is_row, KEY_DIM, BLOCK_K, True)
    q = q.to(keys.dtype.element_ty)
    table = tables + sequence.to(tl.int64) * table_stride
    start = 0
    if WINDOW:
        start = tl.maximum(end - WINDOW, 0) // BLOCK_N * BLOCK_N
    seen = end // BLOCK_N * BLOCK_N
    dims = tl.arange(0, BLOCK_V)[None, :]
    parts = (sequence.to(tl.int64) * (NUM_KV_HEADS * GROUP) + heads) * num_splits

    while first < end:
        finish = tl.minimum(split_start(split + 1, FIRST_SPLIT), end)
        if finish > start:
            begin = tl.maximum(first, start)
            peaks, sums, outputs = attend_range(
                q,
                positions,
                keys,
                values,
                table,
                kv_head,
                begin,
                seen,
                finish,
                scale,
                NUM_KV_HEADS,
                KEY_DIM,
                VALUE_DIM,
                BLOCK_SIZE,
                WINDOW,
                SOFTCAP,
                BLOCK_M,
                BLOCK_N,
                BLOCK_K,
                BLOCK_V,
                WIDEN,
            )
            part = parts + split
            tl.store(partial_outputs + part[:, None] * BLOCK_V + dims, outputs, mask=is_row[:, None])
            tl.store(partial_sums + part * 2, peaks, mask=is_row)
            tl.store(partial_sums + part * 2 + 1, sums, mask=is_row)
        split += tl.num_programs(2)
        first = split_start(split, FIRST_SPLIT)


@triton.jit(do_not_specialize=["num_sequences", "num_rows", "num_splits"])
def merge_decodes(
    out,
    partial_outputs,
    partial_sums,
    sinks,
    starts,
    contexts,
    row_sequences,
    num_sequences,
    num_rows,
    num_splits,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    FIRST_SPLIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Flash-decoding's second half, and zeros for padding rows; grid [sequences or rows, kv heads].

    Program i has the one new row of sequence i, if it has one, and row i, if that is padding.
    """
    index = tl.program_id(0)
    lanes = tl.arange(0, BLOCK_H)
    heads = tl.program_id(1) * GROUP + tl.minimum(lanes, GROUP - 1)
    dims = tl.arange(0, BLOCK_V)[None, :]
    is_stored = (lanes < GROUP)[:, None] & (dims < VALUE_DIM)
    if tl.load(row_sequences + index, mask=index < num_rows, other=0) < 0:
        offsets = (index.to(tl.int64) * (NUM_KV_HEADS * GROUP) + heads)[:, None] * VALUE_DIM + dims
        tl.store(out + offsets, tl.zeros([BLOCK_H, BLOCK_V], out.dtype.element_ty), mask=is_stored)
    if index >= num_sequences:
        return
    row = tl.load(starts + index)
    if tl.load(starts + index + 1) - row != 1:
        return

    end = tl.load(contexts + index)
    start = 0
    if WINDOW:
        start = tl.maximum(end - WINDOW, 0) // BLOCK_N * BLOCK_N
    peaks = tl.full([BLOCK_H], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_H], tl.float32)
    outputs = tl.zeros([BLOCK_H, BLOCK_V], tl.float32)
    split = 0
    while split_start(split + 1, FIRST_SPLIT) <= start:
        split += 1
    begin = start
    while begin < end:
        part = (index.to(tl.int64) * (NUM_KV_HEADS * GROUP) + heads) * num_splits + split
        peak = tl.load(partial_sums + part * 2)
        total = tl.load(partial_sums + part * 2 + 1)
        peaks, sums, outputs = fold(
            peaks, sums, outputs, peak, total, tl.load(partial_outputs + part[:, None] * BLOCK_V + dims)
        )
        split += 1
        begin = split_start(split, FIRST_SPLIT)
    outputs = finished(peaks, sums, outputs, sinks, heads)
    offsets = (row.to(tl.int64) * (NUM_KV_HEADS * GROUP) + heads)[:, None] * VALUE_DIM + dims
    tl.store(out + offsets, outputs.to(out.dtype.element_ty), mask=is_stored)
