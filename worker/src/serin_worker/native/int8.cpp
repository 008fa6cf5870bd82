// Linear layers with weights of 8 bits: a row is quantized as it comes, by one scale of its own (the largest magnitude
// over 127); products and sums are whole numbers, exact in any order; each sum is scaled once. So a row's bits depend on
// nothing but the row, and are the same on every processor.
//
// Weights lie as the processor's tiles want them: blocks of 32 columns, steps of 64 numbers of the inner dimension, two
// tiles a step, of 16 lines with 4 numbers for each of 16 columns. Vectors of 64 bytes read the same lines.
#include <algorithm>
#include <cmath>
#include <memory>
#if defined(__linux__) && defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES 1
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "element.h"

namespace {

constexpr int LANES = 16, STEP = 64, BLOCK = 32, TILE = 1024, AHEAD = 4 * TILE;
constexpr int64_t CACHED = 1 << 19;  // bytes of rows that stay at hand while weights go by

struct Output { int64_t columns; void* data; };

struct Task {
  const int8_t* weights;
  const float* scales;  // of columns, zero where a block is padded
  const float* bias;    // the same, or null
  const int8_t* rows;   // quantized, padded with zeros to 16 rows and whole steps
  const float* factors; // of rows
  int64_t num_rows, steps;
};

inline int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <int32_t D> void quantize(const void* in, int64_t row, int64_t width, int64_t padded, int8_t* out, float* factor) {
  typedef Element<D> E;
  typedef typename E::type T;
  const T* x = static_cast<const T*>(in) + row * width;
  const int64_t whole = width / LANES * LANES;
  T edge[LANES] = {};
  std::memcpy(edge, x + whole, (width - whole) * sizeof(T));
  f16x most = {};
  i16x is_finite = i16x{} - 1;
  for (int64_t i = 0; i < width; i += LANES) {
    const f16x v = E::read(i < whole ? x + i : edge), size = v < 0.f ? -v : v;
    most = size > most ? size : most;
    is_finite &= size <= std::numeric_limits<float>::max();
  }
  int32_t all = -1;
  for (int i = 0; i < LANES; i++) all &= is_finite[i];
  const float largest = reduce_max(most);
  // What is not finite stays so: the request that it belongs to has to fail.
  *factor = all ? largest / 127.f : std::numeric_limits<float>::quiet_NaN();
  const float inverse = all && largest > 0.f ? 127.f / largest : 0.f;
  typedef int8_t b16x __attribute__((vector_size(16)));
  for (int64_t i = 0; i < width; i += LANES) {
    f16x v = E::read(i < whole ? x + i : edge) * inverse;
    if (!all) v = f16x{};
    v = v > 127.f ? broadcast(127.f) : v < -127.f ? broadcast(-127.f) : v;  // a subnormal's inverse is infinite
    const u16x nearest = as_bits(v + 12582912.f) - 0x4b400000u;             // to even
    const b16x b = __builtin_convertvector(nearest, b16x);
    std::memcpy(out + i, &b, LANES);
  }
  std::memset(out + up(width, LANES), 0, padded - up(width, LANES));
}

template <int32_t D>
void pack(const void* weights, int64_t columns, int64_t width, int8_t* out, float* scales, int32_t threads) {
  const int64_t steps = up(width, STEP) / STEP, blocks = up(columns, BLOCK) / BLOCK;
#pragma omp parallel num_threads(threads)
  {
    const std::unique_ptr<int8_t[]> row(new int8_t[steps * STEP]);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t c = block * BLOCK; c < std::min(columns, (block + 1) * BLOCK); c++) {
        quantize<D>(weights, c, width, steps * STEP, row.get(), scales + c);
        for (int64_t k = 0; k < steps * STEP; k += 4) {
          int8_t* line = out + (block * steps + k / STEP) * 2 * TILE + (c % BLOCK) / 16 * TILE + (k % STEP) / 4 * 64;
          std::memcpy(line + c % 16 * 4, row.get() + k, 4);
        }
      }
  }
}

#if HAS_TILES
struct alignas(64) TileShape {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t lines[16] = {};
};

void shape_tiles() {
  TileShape shape;
  for (int t = 0; t < 8; t++) shape.bytes[t] = 64, shape.lines[t] = 16;
  _tile_loadconfig(&shape);
}

// The system gives tiles to a process that asks.
bool has_tiles() {
  static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return granted;
}

// 16 or 32 rows by 32 columns. Whoever reads weights first asks memory for what it reads soon: with few rows that is what
// takes the time.
template <bool TWO>
void multiply_tiles(const Task& t, const int8_t* rows, const int8_t* weights, bool is_first, int32_t* sums) {
  const int64_t stride = t.steps * STEP;
  _tile_zero(0);
  _tile_zero(1);
  if (TWO) { _tile_zero(2); _tile_zero(3); }
  for (int64_t s = 0; s < t.steps; s++, weights += 2 * TILE, rows += STEP) {
    _tile_loadd(4, rows, stride);
    _tile_loadd(6, weights, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, weights + TILE, 64);
    _tile_dpbssd(1, 4, 7);
    if (TWO) {
      _tile_loadd(5, rows + 16 * stride, stride);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    if (is_first)
      for (int i = 0; i < 2 * TILE; i += 64) _mm_prefetch(reinterpret_cast<const char*>(weights) + AHEAD + i, _MM_HINT_T0);
  }
  _tile_stored(0, sums, BLOCK * 4);
  _tile_stored(1, sums + 16, BLOCK * 4);
  if (TWO) {
    _tile_stored(2, sums + 16 * BLOCK, BLOCK * 4);
    _tile_stored(3, sums + 16 * BLOCK + 16, BLOCK * 4);
  }
}
#endif

// sum + four products in each lane; `four` holds the row's numbers. On AVX-512 they are moved up by 128 to have no sign,
// and `ones` collects what that adds.
#if defined(__AVX512VNNI__)
inline i16x add_products(i16x sum, i16x line, int32_t four) {
  return (i16x)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four ^ static_cast<int32_t>(0x80808080u)), (__m512i)line);
}
inline i16x moved(i16x sum, i16x ones) { return sum - 128 * ones; }
inline i16x count(i16x ones, i16x line) { return (i16x)_mm512_dpbusd_epi32((__m512i)ones, _mm512_set1_epi32(0x01010101), (__m512i)line); }
#else
inline i16x add_products(i16x sum, i16x line, int32_t four) {
  for (int k = 0; k < 4; k++) {
    const i16x weight = (line << (24 - 8 * k)) >> 24;
    sum += weight * static_cast<int32_t>(static_cast<int8_t>(four >> (8 * k)));
  }
  return sum;
}
inline i16x moved(i16x sum, i16x) { return sum; }
inline i16x count(i16x ones, i16x) { return ones; }
#endif

template <int N> void multiply_vectors(const Task& t, const int8_t* rows, const int8_t* weights, int32_t* sums) {
  const int64_t stride = t.steps * STEP;
  for (int half = 0; half < 2; half++) {
    i16x sum[N] = {}, ones = {};
    for (int64_t s = 0; s < t.steps; s++)
      for (int line = 0; line < 16; line++) {
        i16x w;
        std::memcpy(&w, weights + s * 2 * TILE + half * TILE + line * 64, 64);
        ones = count(ones, w);
        for (int n = 0; n < N; n++) {
          int32_t four;
          std::memcpy(&four, rows + n * stride + s * STEP + line * 4, 4);
          sum[n] = add_products(sum[n], w, four);
        }
      }
    for (int n = 0; n < N; n++) {
      const i16x right = moved(sum[n], ones);
      std::memcpy(sums + n * BLOCK + half * 16, &right, 64);
    }
  }
}

void multiply(const Task& t, int64_t row, int64_t block, bool is_first, bool tiles, int32_t* sums) {
  const int8_t* rows = t.rows + row * t.steps * STEP;
  const int8_t* weights = t.weights + block * t.steps * 2 * TILE;
#if HAS_TILES
  if (tiles) {
    if (t.num_rows - row > 16) multiply_tiles<true>(t, rows, weights, is_first, sums);
    else multiply_tiles<false>(t, rows, weights, is_first, sums);
    return;
  }
#endif
  int64_t left = std::min<int64_t>(BLOCK, t.num_rows - row);
  for (; left >= 4; left -= 4, rows += 4 * t.steps * STEP, sums += 4 * BLOCK) multiply_vectors<4>(t, rows, weights, sums);
  for (; left > 0; left--, rows += t.steps * STEP, sums += BLOCK) multiply_vectors<1>(t, rows, weights, sums);
}

// One block of sums as numbers of the layer's type; `column` is the block's first column of its output.
template <int32_t D>
void finish(const Task& t, int64_t row, int64_t block, const int32_t* sums, const Output& out, int64_t column) {
  typedef Element<D> E;
  typedef typename E::type T;
  const int64_t num = std::min<int64_t>(BLOCK, t.num_rows - row);
  for (int64_t n = 0; n < num; n++)
    for (int half = 0; half < BLOCK; half += LANES) {
      const int64_t left = out.columns - column - half;
      if (left <= 0) continue;
      i16x whole;
      std::memcpy(&whole, sums + n * BLOCK + half, 64);
      f16x v = __builtin_convertvector(whole, f16x) * (t.factors[row + n] * load(t.scales + block * BLOCK + half));
      if (t.bias) v = v + load(t.bias + block * BLOCK + half);
      T* to = static_cast<T*>(out.data) + (row + n) * out.columns + column + half;
      if (left >= LANES) {
        E::write(to, v);
      } else {
        T edge[LANES];
        E::write(edge, v);
        std::memcpy(to, edge, left * sizeof(T));
      }
    }
}

template <int32_t D>
void linear(const void* x, int64_t width, Task t, const Output* outputs, int32_t num_outputs, int8_t* rows, float* factors,
            int32_t threads) {
  const int64_t padded = t.steps * STEP, padded_rows = up(t.num_rows, 16);
  // As many rows as stay in the cache at a time; weights then go by once for each such group.
  const int64_t group = std::max<int64_t>(BLOCK, CACHED / padded / BLOCK * BLOCK);
  int64_t num_blocks = 0;
  for (int32_t o = 0; o < num_outputs; o++) num_blocks += up(outputs[o].columns, BLOCK) / BLOCK;
  bool tiles = false;
#if HAS_TILES
  tiles = has_tiles();
#endif
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < padded_rows; r++) {
      if (r < t.num_rows) quantize<D>(x, r, width, padded, rows + r * padded, factors + r);
      else std::memset(rows + r * padded, 0, padded);
    }
#if HAS_TILES
    if (tiles) shape_tiles();
#endif
    alignas(64) int32_t sums[BLOCK * BLOCK];
#if defined(_OPENMP)
    const int64_t id = omp_get_thread_num(), of = omp_get_num_threads();
#else
    const int64_t id = 0, of = 1;
#endif
    const int64_t first = num_blocks * id / of, last = num_blocks * (id + 1) / of;
    for (int64_t start = 0; start < t.num_rows; start += group) {
      int32_t output = 0;
      int64_t begin = 0;  // the output's first block
      for (int64_t block = first; block < last; block++) {
        while (block - begin >= up(outputs[output].columns, BLOCK) / BLOCK)
          begin += up(outputs[output++].columns, BLOCK) / BLOCK;
        for (int64_t r = start; r < std::min(t.num_rows, start + group); r += BLOCK) {
          multiply(t, r, block, r == start, tiles, sums);
          finish<D>(t, r, block, sums, outputs[output], (block - begin) * BLOCK);
        }
      }
    }
#if HAS_TILES
    if (tiles) _tile_release();
#endif
  }
}

}  // namespace

// What multiplies: 2 tiles, 1 vectors that add four products at once, 0 others.
extern "C" int32_t serin_int8_kind() {
#if HAS_TILES
  if (has_tiles()) return 2;
#endif
#if defined(__AVX512VNNI__)
  return 1;
#else
  return 0;
#endif
}

// `weights` [columns, width] quantized into blocks from `out` on, which is zeroed and has room for whole blocks and steps;
// `scales` of the columns.
extern "C" int32_t serin_int8_pack(int32_t dtype, const void* weights, int64_t columns, int64_t width, int8_t* out,
                                   float* scales, int32_t threads) {
  switch (dtype) {
    case F32: pack<F32>(weights, columns, width, out, scales, threads); return 0;
    case BF16: pack<BF16>(weights, columns, width, out, scales, threads); return 0;
    case F16: pack<F16>(weights, columns, width, out, scales, threads); return 0;
  }
  return 1;
}

// `x` [num_rows, width] times weights, into each output [num_rows, its columns]. `rows` has room for 16-fold rows of whole
// steps, `factors` for as many floats.
extern "C" int32_t serin_int8_linear(int32_t dtype, const void* x, int64_t num_rows, int64_t width, const int8_t* weights,
                                     const float* scales, const float* bias, const Output* outputs, int32_t num_outputs,
                                     int8_t* rows, float* factors, int32_t threads) {
  const Task task = {weights, scales, bias, rows, factors, num_rows, up(width, STEP) / STEP};
  switch (dtype) {
    case F32: linear<F32>(x, width, task, outputs, num_outputs, rows, factors, threads); return 0;
    case BF16: linear<BF16>(x, width, task, outputs, num_outputs, rows, factors, threads); return 0;
    case F16: linear<F16>(x, width, task, outputs, num_outputs, rows, factors, threads); return 0;
  }
  return 1;
}
