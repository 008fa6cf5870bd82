"""Triton's kernels for small modules and for linear layers in 8 bits.

Products are rounded before they are added, as separate operations would.

Every kernel is launched with ``EXACT`` (`native/triton_runtime.py`); tiles and grids are the launcher's.
"""

import triton
import triton.language as tl


@triton.jit
def _rows_at(first: tl.tensor, outer: tl.tensor, inner: tl.tensor, num_inner: tl.tensor) -> tl.tensor:
    """Offsets of rows, in 64 bits: a long prompt's products have more than 2^31 numbers."""
    return (first // num_inner).to(tl.int64) * outer + (first % num_inner).to(tl.int64) * inner


@triton.jit(do_not_specialize=["num_rows", "x_inner_count", "r_inner_count"])
def rms_norm_kernel(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    total: tl.tensor,
    num_rows: tl.tensor,
    x_outer: tl.tensor,
    x_inner: tl.tensor,
    x_inner_count: tl.tensor,
    r_outer: tl.tensor,
    r_inner: tl.tensor,
    r_inner_count: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    kind: tl.constexpr,
    adds: tl.constexpr,
    num_tile_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """``norm(x)``, or, where it adds, ``total = x + residual`` and ``norm(total)``."""
    row = tl.program_id(0) * num_tile_rows + tl.arange(0, num_tile_rows)
    column = tl.arange(0, block)
    mask = (row < num_rows)[:, None] & (column < width)[None, :]
    at = _rows_at(row, x_outer, x_inner, x_inner_count)
    own = tl.load(x + at[:, None] + column[None, :], mask=mask, other=0.0)
    value = own.to(tl.float32)
    target = row.to(tl.int64)[:, None] * width + column[None, :]
    if adds:
        at = _rows_at(row, r_outer, r_inner, r_inner_count)
        value += tl.load(residual + at[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(own.dtype)
        tl.store(total + target, rounded, mask=mask)
        value = rounded.to(tl.float32)
    mean = tl.div_rn(tl.sum(value * value, axis=1), width * 1.0)
    value *= tl.rsqrt(mean + eps)[:, None]
    factor = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    if kind == 0:
        value = value.to(own.dtype).to(tl.float32) * factor
    elif kind == 1:
        value *= 1.0 + factor
    else:
        value *= factor
    tl.store(out + target, value.to(own.dtype), mask=mask)


@triton.jit(do_not_specialize=["x_inner_count", "f_inner_count"])
def activation_kernel(
    x: tl.tensor,
    times: tl.tensor,
    out: tl.tensor,
    x_outer: tl.tensor,
    x_inner: tl.tensor,
    x_inner_count: tl.tensor,
    f_outer: tl.tensor,
    f_inner: tl.tensor,
    f_inner_count: tl.tensor,
    width: tl.constexpr,
    kind: tl.constexpr,
    multiplies: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """``activation(x)``, times a factor if there is one; both are rounded."""
    row = tl.program_id(0)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < width
    own = tl.load(x + _rows_at(row, x_outer, x_inner, x_inner_count) + column, mask=mask, other=0.0)
    value = own.to(tl.float32)
    steep = value
    if kind == 1:  # x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) is x * sigmoid of this
        steep = 1.5957691216 * (value + 0.044715 * value * value * value)
    small = tl.exp(-tl.abs(steep))
    value = tl.div_rn(value * tl.where(steep < 0, small, 1.0), 1.0 + small)
    if multiplies:
        factor = tl.load(times + _rows_at(row, f_outer, f_inner, f_inner_count) + column, mask=mask, other=0.0)
        value = value.to(own.dtype).to(tl.float32) * factor.to(tl.float32)
    tl.store(out + row.to(tl.int64) * width + column, value.to(own.dtype), mask=mask)


@triton.jit
def _rotate_heads(
    x: tl.tensor,
    out: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    first: tl.tensor,
    token: tl.tensor,
    token_stride: tl.tensor,
    head_stride: tl.tensor,
    angle_stride: tl.tensor,
    num_heads: tl.constexpr,
    half: tl.constexpr,
    num_tile_heads: tl.constexpr,
    block: tl.constexpr,
) -> None:
    head = first + tl.arange(0, num_tile_heads)
    column = tl.arange(0, block)
    mask = (head < num_heads)[:, None] & (column < half)[None, :]
    start = x + token * token_stride + head.to(tl.int64)[:, None] * head_stride + column[None, :]
    low = tl.load(start, mask=mask, other=0.0)
    high = tl.load(start + half, mask=mask, other=0.0)
    angle = token * angle_stride + column
    is_angle = column < half
    cos_low = tl.load(cos + angle, mask=is_angle, other=0.0).to(tl.float32)[None, :]
    cos_high = tl.load(cos + angle + half, mask=is_angle, other=0.0).to(tl.float32)[None, :]
    sin_low = tl.load(sin + angle, mask=is_angle, other=0.0).to(tl.float32)[None, :]
    sin_high = tl.load(sin + angle + half, mask=is_angle, other=0.0).to(tl.float32)[None, :]
    dtype = low.dtype
    low32, high32 = low.to(tl.float32), high.to(tl.float32)
    turned_low = (low32 * cos_low).to(dtype).to(tl.float32) + (-high32 * sin_low).to(dtype).to(tl.float32)
    turned_high = (high32 * cos_high).to(dtype).to(tl.float32) + (low32 * sin_high).to(dtype).to(tl.float32)
    target = out + (token * num_heads + head)[:, None] * (2 * half) + column[None, :]
    tl.store(target, turned_low.to(dtype), mask=mask)
    tl.store(target + half, turned_high.to(dtype), mask=mask)


@triton.jit
def rotation_kernel(
    q: tl.tensor,
    k: tl.tensor,
    q_out: tl.tensor,
    k_out: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    q_token_stride: tl.tensor,
    q_head_stride: tl.tensor,
    k_token_stride: tl.tensor,
    k_head_stride: tl.tensor,
    angle_stride: tl.tensor,
    num_q_heads: tl.constexpr,
    num_k_heads: tl.constexpr,
    half: tl.constexpr,
    num_tile_heads: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """``x * cos + (-second half, first half) * sin`` for a token's heads; every operation is rounded."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    num_q_parts: tl.constexpr = (num_q_heads + num_tile_heads - 1) // num_tile_heads
    if part < num_q_parts:
        first = part * num_tile_heads
        _rotate_heads(q, q_out, cos, sin, first, token, q_token_stride, q_head_stride, angle_stride, num_q_heads, half, num_tile_heads, block)  # fmt: skip  # noqa: E501
    else:
        first = (part - num_q_parts) * num_tile_heads
        _rotate_heads(k, k_out, cos, sin, first, token, k_token_stride, k_head_stride, angle_stride, num_k_heads, half, num_tile_heads, block)  # fmt: skip  # noqa: E501


@triton.jit
def _largest_of(value: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Of each row the largest magnitude among its numbers, and whether some are none."""
    is_nan = tl.max((value != value).to(tl.int32), axis=1) > 0
    return tl.max(tl.where(value == value, tl.abs(value), 0.0), axis=1), is_nan


@triton.jit(do_not_specialize=["num_rows", "x_inner_count"])
def quantize_kernel(
    x: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    num_rows: tl.tensor,
    x_outer: tl.tensor,
    x_inner: tl.tensor,
    x_inner_count: tl.tensor,
    largest: tl.constexpr,
    least_factor: tl.constexpr,
    width: tl.constexpr,
    num_tile_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Rows in e4m3, and what to multiply each with to get it back; NaN where a row has any."""
    row = tl.program_id(0) * num_tile_rows + tl.arange(0, num_tile_rows)
    column = tl.arange(0, block)
    mask = (row < num_rows)[:, None] & (column < width)[None, :]
    at = _rows_at(row, x_outer, x_inner, x_inner_count)
    value = tl.load(x + at[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    most, is_nan = _largest_of(value)
    factor = tl.maximum(tl.div_rn(most, largest), least_factor)
    factor = tl.where(is_nan, float("nan"), factor)
    rounded = tl.div_rn(value, tl.broadcast_to(factor[:, None], (num_tile_rows, block))).to(tl.float8e4nv)
    tl.store(numbers + row.to(tl.int64)[:, None] * width + column[None, :], rounded, mask=mask)
    tl.store(factors + row, factor, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows", "x_inner_count"])
def quantize_whole_kernel(
    x: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    num_rows: tl.tensor,
    x_outer: tl.tensor,
    x_inner: tl.tensor,
    x_inner_count: tl.tensor,
    width: tl.constexpr,
    num_tile_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Rows as whole numbers up to 127, and what to multiply each with to get it back; NaN where a row has any."""
    row = tl.program_id(0) * num_tile_rows + tl.arange(0, num_tile_rows)
    column = tl.arange(0, block)
    mask = (row < num_rows)[:, None] & (column < width)[None, :]
    at = _rows_at(row, x_outer, x_inner, x_inner_count)
    value = tl.load(x + at[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    most, is_nan = _largest_of(value)
    is_any = (most > 0) & ~is_nan
    inverse = tl.where(is_any, tl.div_rn(127.0, tl.where(is_any, most, 1.0)), 0.0)
    scaled = value * inverse[:, None]
    scaled = tl.where(scaled == scaled, scaled, 0.0)
    whole = scaled + 12582912.0 - 12582912.0  # 1.5 * 2^23, where floats are whole: the nearest, ties to even
    whole = tl.minimum(tl.maximum(whole, -127.0), 127.0)
    tl.store(numbers + row.to(tl.int64)[:, None] * width + column[None, :], whole.to(tl.int8), mask=mask)
    factor = tl.where(is_nan, float("nan"), tl.div_rn(most, 127.0))
    tl.store(factors + row, factor, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows"])
def linear_int8_kernel(
    numbers: tl.tensor,
    factors: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    num_rows: tl.tensor,
    num_inputs: tl.constexpr,
    num_outputs: tl.constexpr,
    has_bias: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_outputs: tl.constexpr,
    tile_inputs: tl.constexpr,
) -> None:
    """``sum(numbers * weight) * (factor * scale) + bias``; programs of the same weights come one after the other."""
    row = tl.program_id(0) * tile_rows + tl.arange(0, tile_rows)
    output = tl.program_id(1) * tile_outputs + tl.arange(0, tile_outputs)
    inner = tl.arange(0, tile_inputs)
    is_row, is_output = row < num_rows, output < num_outputs
    left = numbers + row.to(tl.int64)[:, None] * num_inputs + inner[None, :]
    right = weight + output.to(tl.int64)[None, :] * num_inputs + inner[:, None]
    sums = tl.zeros((tile_rows, tile_outputs), tl.int32)
    for first in range(0, num_inputs, tile_inputs):
        is_inner = first + inner < num_inputs
        a = tl.load(left + first, mask=is_row[:, None] & is_inner[None, :], other=0)
        b = tl.load(right + first, mask=is_output[None, :] & is_inner[:, None], other=0)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    factor = tl.load(factors + row, mask=is_row, other=0.0)
    scale = tl.load(scales + output, mask=is_output, other=0.0)
    value = sums.to(tl.float32) * (factor[:, None] * scale[None, :])
    if has_bias:
        value += tl.load(bias + output, mask=is_output, other=0.0)[None, :]
    target = out + row.to(tl.int64)[:, None] * num_outputs + output[None, :]
    tl.store(target, value.to(out.dtype.element_ty), mask=is_row[:, None] & is_output[None, :])
