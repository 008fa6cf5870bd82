// Linear layers whose weights were laid out once. A row's bits depend on nothing but the row: whatever other rows it
// comes with, its products are added in one order.
//
// Of 8 bits: a row is quantized as it comes, by one scale of its own (the largest magnitude over 127); sums are whole
// numbers, exact in any order, and scaled once, so they are the same on every processor. Of bfloat16: products are
// added in float32, in the order that the processor's tiles or vectors have.
//
// Weights and rows lie as tiles want them. Weights: blocks of 32 columns, steps of 64 bytes of the inner dimension, two
// tiles a step, each of 16 lines with 4 bytes for each of 16 columns. Rows: groups of 16, one tile a step. Vectors of
// 64 bytes read the same lines. Where nothing multiplies pairs of bfloat16 rows are widened to float32 as they come.
#include <algorithm>
#include <cmath>
#include <memory>

#include "element.h"
#include "kernels.h"
#include "pool.h"
#include "tiles.h"

namespace {

enum Kind : int32_t { INT8 = 0, BFLOAT16 = 1 };

constexpr int LANES = 16, STEP = 64, BLOCK = 32, TILE = 1024, AHEAD = 4 * TILE;  // bytes, but for LANES and BLOCK
constexpr int64_t CACHED = 1 << 20;  // bytes of rows that stay at hand while weights go by
constexpr int64_t SHARE = 8;         // blocks that a thread takes at a time
constexpr int64_t SMALL = 256;       // steps of rows: fewer are laid out faster than shared
constexpr int MANY = SUMS_IN_FLIGHT; // rows that vectors take at a time
#if defined(__AVX512F__)
constexpr int HALVES = 2;  // of a block's columns at a time, as far as registers go
#else
constexpr int HALVES = 1;
#endif

#if defined(__AVX512BF16__) || !defined(__FMA__)
template <int32_t K> constexpr bool WIDENED = false;
#else
template <int32_t K> constexpr bool WIDENED = K == BFLOAT16;
#endif

// Bytes of a row in a step, and of 16 rows.
template <int32_t K> constexpr int PART = WIDENED<K> ? 2 * STEP : STEP;
template <int32_t K> constexpr int GROUP = 16 * PART<K>;

struct Task {
  const uint8_t* weights;
  const float* scales;  // of columns, zero where a block is padded; of weights that are no whole numbers one
  const float* bias;    // the same, or null
  uint8_t* rows;        // laid out, padded with zeros to 16 rows and whole steps
  float* factors;       // of rows
  int64_t num_rows, width, steps;
};

inline int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

typedef int8_t b16x __attribute__((vector_size(16)));

// One row as whole numbers; `out` has room for whole vectors.
template <int32_t D> float quantize(const typename Element<D>::type* x, int64_t width, int8_t* out) {
  typedef Element<D> E;
  const int64_t whole = width / LANES * LANES;
  typename E::type edge[LANES] = {};
  std::memcpy(edge, x + whole, (width - whole) * sizeof edge[0]);
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
  const float inverse = all && largest > 0.f ? 127.f / largest : 0.f;
  for (int64_t i = 0; i < width; i += LANES) {
    f16x v = E::read(i < whole ? x + i : edge) * inverse;
    if (!all) v = f16x{};
    v = v > 127.f ? broadcast(127.f) : v < -127.f ? broadcast(-127.f) : v;  // a subnormal's inverse is infinite
    const u16x nearest = as_bits(v + 12582912.f) - 0x4b400000u;             // to even
    const b16x b = __builtin_convertvector(nearest, b16x);
    std::memcpy(out + i, &b, LANES);
  }
  // What is not finite stays so: the request that it belongs to has to fail.
  return all ? largest / 127.f : std::numeric_limits<float>::quiet_NaN();
}

// One row of a layer's input or weights as its kind wants it, padded with zeros to whole steps; returns its scale.
template <int32_t K, int32_t D> float convert(const void* from, int64_t row, const Task& t, uint8_t* out) {
  const auto* x = static_cast<const typename Element<D>::type*>(from) + row * t.width;
  const int64_t bytes = K == INT8 ? up(t.width, LANES) : 2 * t.width;
  float scale = 1.f;
  if (K == INT8) scale = quantize<D>(x, t.width, reinterpret_cast<int8_t*>(out));
  else std::memcpy(out, x, bytes);
  std::memset(out + bytes, 0, t.steps * STEP - bytes);
  return scale;
}

// A step of transposing: of two lines, the lanes that have the bit K and those that do not change places.
template <int K> inline void exchange(u16x& a, u16x& b) {
#define LANE(j) ((j) & K ? ((j) ^ K) + 16 : (j)), ((j) + 1) & K ? (((j) + 1) ^ K) + 16 : (j) + 1
  const u16x first = __builtin_shufflevector(a, b, LANE(0), LANE(2), LANE(4), LANE(6), LANE(8), LANE(10), LANE(12), LANE(14));
#undef LANE
#define LANE(j) ((j) & K ? (j) + 16 : (j) ^ K), ((j) + 1) & K ? (j) + 17 : ((j) + 1) ^ K
  b = __builtin_shufflevector(a, b, LANE(0), LANE(2), LANE(4), LANE(6), LANE(8), LANE(10), LANE(12), LANE(14));
#undef LANE
  a = first;
}

template <int K> inline void exchange_all(u16x* lines) {
  for (int i = 0; i < LANES; i++)
    if (!(i & K)) exchange<K>(lines[i], lines[i | K]);
}

// Sixteen lines of `stride` bytes as a tile: four bytes of each beside each other.
inline void transpose(const uint8_t* from, int64_t stride, uint8_t* tile) {
  u16x lines[LANES];
  for (int i = 0; i < LANES; i++) std::memcpy(&lines[i], from + i * stride, STEP);
  exchange_all<1>(lines), exchange_all<2>(lines), exchange_all<4>(lines), exchange_all<8>(lines);
  std::memcpy(tile, lines, TILE);
}

template <int32_t K, int32_t D>
void pack(const void* weights, int64_t columns, const Task& t, uint8_t* out, float* scales, int32_t threads) {
  share(up(columns, LANES) / LANES, threads, [&](Jobs& jobs) {
    const int64_t bytes = t.steps * STEP;
    const std::unique_ptr<uint8_t[]> lines(new uint8_t[LANES * bytes]);
    for (int64_t group; jobs.take(group);) {
      const int64_t first = group * LANES, num = std::min<int64_t>(LANES, columns - first);
      for (int64_t c = 0; c < num; c++) scales[first + c] = convert<K, D>(weights, first + c, t, lines.get() + c * bytes);
      std::memset(lines.get() + num * bytes, 0, (LANES - num) * bytes);
      uint8_t* tile = out + group / 2 * t.steps * 2 * TILE + group % 2 * TILE;
      for (int64_t s = 0; s < t.steps; s++) transpose(lines.get() + s * STEP, bytes, tile + s * 2 * TILE);
    }
  });
}

// Rows [num_rows, width] as tiles.
template <int32_t K, int32_t D> void lay_out(const void* x, const Task& t, int64_t row, uint8_t* line) {
  if (row < t.num_rows) t.factors[row] = convert<K, D>(x, row, t, line);
  else std::memset(line, 0, t.steps * STEP);
  uint8_t* to = t.rows + row / 16 * t.steps * GROUP<K> + row % 16 * PART<K>;
  for (int64_t s = 0; s < t.steps; s++, to += GROUP<K>, line += STEP) {
    if constexpr (WIDENED<K>) {
      for (int i = 0; i < STEP; i += STEP / 2)
        store(reinterpret_cast<float*>(to) + i / 2, Element<BF16>::read(reinterpret_cast<uint16_t*>(line + i)));
    } else {
      std::memcpy(to, line, STEP);
    }
  }
}

#if HAS_TILES
#define ADD_PRODUCTS(sums, rows, weights) \
  do { if (K == INT8) _tile_dpbssd(sums, rows, weights); else _tile_dpbf16ps(sums, rows, weights); } while (0)

// 16 or 32 rows by 32 columns. Whoever reads weights first asks memory for what it reads soon: with few rows that is
// what takes the time.
template <int32_t K, bool TWO>
void multiply_tiles(const Task& t, const uint8_t* rows, const uint8_t* weights, bool is_first, int32_t* sums) {
  constexpr int WIDTH = BLOCK * 4;
  have_written(rows);
  _tile_zero(0);
  _tile_zero(1);
  if (TWO) { _tile_zero(2); _tile_zero(3); }
  for (int64_t s = 0; s < t.steps; s++, weights += 2 * TILE, rows += TILE) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, weights, 64);
    ADD_PRODUCTS(0, 4, 6);
    _tile_loadd(7, weights + TILE, 64);
    ADD_PRODUCTS(1, 4, 7);
    if (TWO) {
      _tile_loadd(5, rows + t.steps * TILE, 64);
      ADD_PRODUCTS(2, 5, 6);
      ADD_PRODUCTS(3, 5, 7);
    }
    if (is_first) {
      const char* soon = reinterpret_cast<const char*>(weights) + AHEAD;
      for (int i = 0; i < 2 * TILE; i += 64) _mm_prefetch(soon + i, _MM_HINT_T0);
    }
  }
  _tile_stored(0, sums, WIDTH);
  _tile_stored(1, sums + 16, WIDTH);
  if (TWO) {
    _tile_stored(2, sums + 16 * BLOCK, WIDTH);
    _tile_stored(3, sums + 16 * BLOCK + 16, WIDTH);
  }
}
#endif

// Running sums of one row over 16 columns, fed by lines of weights and four bytes of the row.
template <int32_t K> struct Running;

template <> struct Running<BFLOAT16> {
  Sums sums = no_sums();
  void add(const uint8_t* line, const uint8_t* pair) {
    const uint16_t* tile = reinterpret_cast<const uint16_t*>(line);
    if constexpr (WIDENED<BFLOAT16>) sums = add_product_of_pairs(sums, tile, reinterpret_cast<const float*>(pair));
    else sums = add_product(sums, tile, reinterpret_cast<const uint16_t*>(pair));
  }
  void keep(const Running&, void* out) const { store(static_cast<float*>(out), sums); }
};

#if defined(__AVX512VNNI__)
template <> struct Running<INT8> {
  i16x sums = {};
  // The row's numbers are moved up by 128 to have no sign; what that adds is taken off in the end.
  void add(const uint8_t* line, const uint8_t* four) { add(line, read(four) ^ static_cast<int32_t>(0x80808080u)); }
  void add(const uint8_t* line, int32_t four) {
    sums = (i16x)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(four), _mm512_loadu_si512(line));
  }
  void keep(const Running& ones, void* out) const {
    const i16x right = sums - 128 * ones.sums;
    std::memcpy(out, &right, 64);
  }
  static int32_t read(const uint8_t* four) {
    int32_t number;
    std::memcpy(&number, four, 4);
    return number;
  }
};
#elif defined(__AVX2__)
template <> struct Running<INT8> {
  __m256i low = _mm256_setzero_si256(), high = low;
  // The first and third of four numbers, and the second and fourth, as numbers of 16 bits.
  static __m256i odd_ones(__m256i fours) { return _mm256_srai_epi16(_mm256_slli_epi16(fours, 8), 8); }
  static __m256i even_ones(__m256i fours) { return _mm256_srai_epi16(fours, 8); }
  static __m256i add(__m256i sums, const uint8_t* line, __m256i row) {
    const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(odd_ones(weights), odd_ones(row)));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(even_ones(weights), even_ones(row)));
  }
  void add(const uint8_t* line, const uint8_t* four) {
    int32_t number;
    std::memcpy(&number, four, 4);
    const __m256i row = _mm256_set1_epi32(number);
    low = add(low, line, row), high = add(high, line + 32, row);
  }
  void keep(const Running&, void* out) const {
    _mm256_storeu_si256(static_cast<__m256i*>(out), low);
    _mm256_storeu_si256(static_cast<__m256i*>(out) + 1, high);
  }
};
#else
template <> struct Running<INT8> {
  i16x sums = {};
  void add(const uint8_t* line, const uint8_t* four) {
    i16x w;
    std::memcpy(&w, line, 64);
    for (int k = 0; k < 4; k++)
      sums += ((w << (24 - 8 * k)) >> 24) * static_cast<int32_t>(static_cast<int8_t>(four[k]));
  }
  void keep(const Running&, void* out) const { std::memcpy(out, &sums, 64); }
};
#endif

// N rows of a group of 16 by 32 columns.
template <int32_t K, int N>
void multiply_vectors(const Task& t, const uint8_t* rows, const uint8_t* weights, int32_t* sums) {
  for (int first = 0; first < 2; first += HALVES) {
    Running<K> running[N][HALVES], ones[HALVES];
    for (int64_t s = 0; s < t.steps; s++)
      for (int line = 0; line < 16; line++)
        for (int half = 0; half < HALVES; half++) {
          const uint8_t* w = weights + s * 2 * TILE + (first + half) * TILE + line * 64;
#if defined(__AVX512VNNI__)
          if constexpr (K == INT8) ones[half].add(w, 0x01010101);
#endif
          for (int n = 0; n < N; n++) running[n][half].add(w, rows + s * GROUP<K> + n * PART<K> + line * PART<K> / 16);
        }
    for (int half = 0; half < HALVES; half++)
      for (int n = 0; n < N; n++) running[n][half].keep(ones[half], sums + n * BLOCK + (first + half) * 16);
  }
}

// One block of sums as numbers of the layer's type; `column` is the block's first column of its output.
template <int32_t K, int32_t D>
void finish(const Task& t, int64_t row, int64_t block, const int32_t* sums, const Output& out, int64_t column) {
  typedef Element<D> E;
  typedef typename E::type T;
  const int64_t num = std::min<int64_t>(BLOCK, t.num_rows - row);
  for (int half = 0; half < BLOCK; half += LANES) {
    const int64_t left = out.columns - column - half;
    if (left <= 0) continue;
    const f16x scale = K == INT8 ? load(t.scales + block * BLOCK + half) : f16x{};
    const f16x bias = t.bias ? load(t.bias + block * BLOCK + half) : f16x{};
    T* to = static_cast<T*>(out.data) + row * out.columns + column + half;
    const auto value = [&](int64_t n) {
      f16x v;
      if (K == INT8) {
        i16x whole;
        std::memcpy(&whole, sums + n * BLOCK + half, 64);
        v = __builtin_convertvector(whole, f16x) * (t.factors[row + n] * scale);
      } else {
        std::memcpy(&v, sums + n * BLOCK + half, 64);
      }
      return t.bias ? v + bias : v;
    };
    if (left >= LANES) {
      for (int64_t n = 0; n < num; n++, to += out.columns) E::write(to, value(n));
      continue;
    }
    for (int64_t n = 0; n < num; n++, to += out.columns) {
      T edge[LANES];
      E::write(edge, value(n));
      std::memcpy(to, edge, left * sizeof(T));
    }
  }
}

// Up to 32 rows by one block of columns.
template <int32_t K>
void multiply(const Task& t, int64_t row, int64_t block, bool is_first, bool tiles, int32_t* sums) {
  const uint8_t* weights = t.weights + block * t.steps * 2 * TILE;
  const uint8_t* group = t.rows + row / 16 * t.steps * GROUP<K>;
#if HAS_TILES
  if (tiles) {
    if (t.num_rows - row > 16) multiply_tiles<K, true>(t, group, weights, is_first, sums);
    else multiply_tiles<K, false>(t, group, weights, is_first, sums);
    return;
  }
#endif
  const int64_t num = std::min<int64_t>(BLOCK, t.num_rows - row);
  for (int64_t n = 0; n < num;) {
    const uint8_t* rows = group + n / 16 * t.steps * GROUP<K> + n % 16 * PART<K>;
    if (num - n >= MANY) multiply_vectors<K, MANY>(t, rows, weights, sums + n * BLOCK), n += MANY;
    else multiply_vectors<K, 1>(t, rows, weights, sums + n * BLOCK), n++;
  }
}

template <int32_t K, int32_t D>
void linear(const void* x, const Task& t, const Output* outputs, int32_t num_outputs, int32_t threads) {
  // As many rows as stay in the cache at a time; weights then go by once for each such group.
  const int64_t group = std::max<int64_t>(BLOCK, CACHED / (t.steps * PART<K>) / BLOCK * BLOCK);
  int64_t num_blocks = 0;
  for (int32_t o = 0; o < num_outputs; o++) num_blocks += up(outputs[o].columns, BLOCK) / BLOCK;
  const bool tiles = has_tiles();
  share(up(t.num_rows, 16) / 16, t.num_rows * t.steps > SMALL ? threads : 1, [&](Jobs& jobs) {
    const std::unique_ptr<uint8_t[]> line(new uint8_t[t.steps * STEP]);
    for (int64_t g; jobs.take(g);)
      for (int64_t row = g * 16; row < (g + 1) * 16; row++) lay_out<K, D>(x, t, row, line.get());
  });
  const int64_t shares = up(num_blocks, SHARE) / SHARE;
  share(up(t.num_rows, group) / group * shares, threads, [&](Jobs& jobs) {
    const ShapedTiles shaped(tiles);
    alignas(64) int32_t sums[BLOCK * BLOCK];
    for (int64_t job; jobs.take(job);) {
      const int64_t first = job / shares * group, last = std::min(t.num_rows, first + group);
      int32_t output = 0;
      int64_t begin = 0;  // the output's first block
      for (int64_t block = job % shares * SHARE; block < std::min(num_blocks, (job % shares + 1) * SHARE); block++) {
        while (block - begin >= up(outputs[output].columns, BLOCK) / BLOCK)
          begin += up(outputs[output++].columns, BLOCK) / BLOCK;
        for (int64_t row = first; row < last; row += BLOCK) {
          multiply<K>(t, row, block, row == first, tiles, sums);
          finish<K, D>(t, row, block, sums, outputs[output], (block - begin) * BLOCK);
        }
      }
    }
  });
}

}  // namespace

#define FOR_KIND_AND_DTYPE(call)                                   \
  return outcome_of([&]() -> int32_t {                             \
    switch (kind * 4 + dtype) {                                    \
      case INT8 * 4 + F32: call(INT8, F32); return DONE;           \
      case INT8 * 4 + BF16: call(INT8, BF16); return DONE;         \
      case INT8 * 4 + F16: call(INT8, F16); return DONE;           \
      case BFLOAT16 * 4 + BF16: call(BFLOAT16, BF16); return DONE; \
    }                                                              \
    return UNKNOWN_TYPE;                                           \
  })

inline int64_t num_steps(int32_t kind, int64_t width) { return up(kind == INT8 ? width : 2 * width, STEP) / STEP; }

// `weights` [columns, width] into blocks from `out` on, which is zeroed and has room for whole blocks and steps;
// `scales` of the columns.
extern "C" int32_t serin_linear_pack(int32_t kind, int32_t dtype, const void* weights, int64_t columns, int64_t width,
                                     uint8_t* out, float* scales, int32_t threads) {
  const Task task = {nullptr, nullptr, nullptr, nullptr, nullptr, 0, width, num_steps(kind, width)};
#define PACK(K, D) pack<K, D>(weights, columns, task, out, scales, threads)
  FOR_KIND_AND_DTYPE(PACK);
}

int64_t serin_linear_row_bytes(int32_t kind, int64_t width) {
  return num_steps(kind, width) * (kind == INT8 ? PART<INT8> : PART<BFLOAT16>);
}

int32_t serin_linear(int32_t kind, int32_t dtype, const void* x, int64_t num_rows, int64_t width,
                     const uint8_t* weights, const float* scales, const float* bias, const Output* outputs,
                     int32_t num_outputs, uint8_t* rows, float* factors, int32_t threads) {
  const Task task = {weights, scales, bias, rows, factors, num_rows, width, num_steps(kind, width)};
#define LINEAR(K, D) linear<K, D>(x, task, outputs, num_outputs, threads)
  FOR_KIND_AND_DTYPE(LINEAR);
}
