"""Triton's kernels for draws: each tile of some rows finds its best, and the best of those are merged.

Noise is estimated in single precision, and computed in double, as the torch functions do, for what might win.
"""

import triton
import triton.language as tl


@triton.jit
def _exact_noise(bits: tl.tensor) -> tl.tensor:
    """-log(-log(1 - (bits + 1/2) / 2^32)), as sampling/draw.py has it; the argument of the inner one is exact."""
    rest = 1.0 - (bits.to(tl.float64) + 0.5) * 2.3283064365386963e-10
    return (-tl.log(-tl.log(rest))).to(tl.float32)


@triton.jit
def _estimated_noise(bits: tl.tensor) -> tl.tensor:
    """The same to 1e-5: in single precision the inner logarithm of what is close to 1 is a series."""
    small = (bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    rest = ((bits ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    series = small * (1.0 + small * (0.5 + small * (0.33333333 + small * 0.25)))
    return -tl.log(tl.where(small < 0.01, series, -tl.log(rest)))


@triton.jit
def _words(counter: tl.tensor, position: tl.tensor, choice: tl.tensor, purpose: tl.constexpr, low: tl.tensor, high: tl.tensor) -> tl.tensor:  # fmt: skip  # noqa: E501
    """Four words of Philox for each counter."""
    zero = counter * 0
    return tl.philox_impl(counter, position + zero, choice + zero, zero + purpose, low + zero, high + zero)


@triton.jit
def _first(is_one: tl.tensor, token: tl.tensor) -> tl.tensor:
    """The first token of each row that is one; beyond all where none is."""
    return tl.min(tl.where(is_one, token, 0x7FFFFFFF), axis=1)


@triton.jit(do_not_specialize=["num_rows"])
def choose_kernel(
    logits: tl.tensor,
    table: tl.tensor,
    best: tl.tensor,
    num_rows: tl.tensor,
    row_stride: tl.tensor,
    size: tl.constexpr,
    draws: tl.constexpr,
    purpose: tl.constexpr,
    num_tile_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """For each row and tile four words: largest logit (NaN if any is), its first place, best score, its first place.

    ``table`` [rows, 6]: temperature (0: not drawn), choice, position, seed (two words), and one left out.
    """
    row = tl.program_id(0) * num_tile_rows + tl.arange(0, num_tile_rows)
    part = tl.program_id(1)
    token = part * block + tl.arange(0, block)
    is_row = row < num_rows
    at = row.to(tl.int64)[:, None] * row_stride + token[None, :]
    is_in = (token < size)[None, :]
    x = tl.load(logits + at, mask=is_row[:, None] & is_in, other=-float("inf")).to(tl.float32)
    tokens = tl.broadcast_to(token[None, :], (num_tile_rows, block))
    is_nan = tl.max((x != x).to(tl.int32), axis=1) > 0
    top = tl.max(tl.where(x == x, x, -float("inf")), axis=1)
    place = tl.minimum(_first((x == top[:, None]) & is_in, tokens), size - 1)
    to = best + (row.to(tl.int64) * tl.num_programs(1) + part) * 4
    tl.store(to, tl.where(is_nan, float("nan"), top).to(tl.int32, bitcast=True), mask=is_row)
    tl.store(to + 1, place, mask=is_row)
    if draws:
        entry = table + row * 6
        temperature = tl.load(entry, mask=is_row, other=0).to(tl.float32, bitcast=True)
        choice = tl.load(entry + 1, mask=is_row, other=0).to(tl.uint32, bitcast=True)
        position = tl.load(entry + 2, mask=is_row, other=0).to(tl.uint32, bitcast=True)
        low = tl.load(entry + 3, mask=is_row, other=0).to(tl.uint32, bitcast=True)
        high = tl.load(entry + 4, mask=is_row, other=0).to(tl.uint32, bitcast=True)
        is_drawn = temperature > 0
        if tl.max(is_drawn.to(tl.int32), axis=0) > 0:
            # Four tokens share a counter, one word each.
            counter = (part * (block // 4) + tl.arange(0, block // 4)).to(tl.uint32)[None, :]
            w0, w1, w2, w3 = _words(counter, position[:, None], choice[:, None], purpose, low[:, None], high[:, None])
            bits = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
            is_candidate = is_in & (x == x) & (x > -float("inf")) & is_drawn[:, None]
            scaled = tl.div_rn(tl.where(is_candidate, x, 0.0), tl.where(is_drawn, temperature, 1.0)[:, None])
            score = tl.where(is_candidate, scaled + _estimated_noise(bits), -float("inf"))
            highest = tl.max(score, axis=1)
            # By as much as an estimate is ever off, and by a last bit of the sum.
            margin = 1e-4 + tl.abs(tl.where(highest > -float("inf"), highest, 0.0)) * 1e-6
            is_near = is_candidate & (score >= (highest - margin)[:, None])
            if tl.max(tl.sum(is_near.to(tl.int32), axis=1), axis=0) > 1:
                score = tl.where(is_near, scaled + _exact_noise(bits), -float("inf"))
                highest = tl.max(score, axis=1)
                drawn = _first(is_near & (score == highest[:, None]), tokens)
            else:
                drawn = _first(is_near, tokens)
                is_own = is_near & (tokens == drawn[:, None])
                own_bits = tl.sum(tl.where(is_own, bits, 0), axis=1)
                own = tl.sum(tl.where(is_own, scaled, 0.0), axis=1)
                highest = tl.where(drawn < size, own + _exact_noise(own_bits.to(tl.uint32)), -float("inf"))
            tl.store(to + 2, highest.to(tl.int32, bitcast=True), mask=is_row)
            tl.store(to + 3, drawn, mask=is_row)


@triton.jit(do_not_specialize=["num_rows"])
def merge_kernel(
    best: tl.tensor,
    table: tl.tensor,
    chosen: tl.tensor,
    num_rows: tl.tensor,
    num_parts: tl.constexpr,
    draws: tl.constexpr,
    num_tile_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """``chosen`` [2, rows]: each row's largest logit, and its first place, or the token that is drawn."""
    row = tl.program_id(0) * num_tile_rows + tl.arange(0, num_tile_rows)
    part = tl.arange(0, block)
    is_row = row < num_rows
    is_in = is_row[:, None] & (part < num_parts)[None, :]
    entry = best + (row.to(tl.int64)[:, None] * num_parts + part[None, :]) * 4
    top = tl.load(entry, mask=is_in, other=0).to(tl.float32, bitcast=True)
    top = tl.where(is_in, top, -float("inf"))
    place = tl.load(entry + 1, mask=is_in, other=0)
    is_nan = tl.max((top != top).to(tl.int32), axis=1) > 0
    highest = tl.max(tl.where(top == top, top, -float("inf")), axis=1)
    found = _first(is_in & (is_nan[:, None] | (top == highest[:, None])), place)
    if draws:
        temperature = tl.load(table + row * 6, mask=is_row, other=0).to(tl.float32, bitcast=True)
        is_drawn = temperature > 0
        is_noted = is_in & is_drawn[:, None]  # of a tile without draws nothing was written
        score = tl.load(entry + 2, mask=is_noted, other=0).to(tl.float32, bitcast=True)
        score = tl.where(is_noted, score, -float("inf"))
        token = tl.load(entry + 3, mask=is_noted, other=0)
        drawn = _first(is_noted & (score == tl.max(score, axis=1)[:, None]), token)
        # Where nothing may be drawn, no token was noted.
        found = tl.where(is_drawn, tl.where(drawn == 0x7FFFFFFF, 0, drawn), found)
    tl.store(chosen + row, tl.where(is_nan, float("nan"), highest).to(tl.int32, bitcast=True), mask=is_row)
    tl.store(chosen + num_rows + row, found, mask=is_row)
