// Paged attention on a CPU: keys and values are written to their pages, then every query row reads its pages in place.
//
// A row's arithmetic depends on its position and its sequence's tokens alone. Keys are visited in blocks of 64 aligned
// to the sequence's start, each block in the same order, with an online softmax (Milakov & Gimelshein 2018); rows only
// share loads. So a row is bit for bit the same alone, in a batch, in a prompt's chunk and as a decode.
//
// A tile is 16 keys of one head. Keys are stored transposed, so that one vector holds the same dimension of 16 keys and
// scores need no horizontal sum; two bf16 are stored side by side for the dot-product instruction:
//   f32, f16: key tile [dim][16], value tile [16][dim]      bf16: key tile [dim/2][16][2], value tile [8][dim][2]
// Value dimensions are padded to 16. A value tile is zeroed when its first key is written: a weight of zero times what
// an earlier owner left there must be zero.
//
// Where the processor multiplies matrix tiles, those of bf16 do all products, for one row as for many: a key tile is
// four of them as it lies, values are put together two and two. Their sums have an order of their own.
//
// Plain C interface, no torch headers: compiles in seconds and is loaded with ctypes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "tiles.h"
#include "vector.h"

namespace {

constexpr int TILE = 16, BLOCK_TILES = 4, BLOCK = TILE * BLOCK_TILES;
constexpr int ROWS = 32, TILED_ROWS = 64;  // that read a tile together
constexpr int SERIAL_ROWS = 8;             // fewer are written faster than shared

inline f16x capped(f16x x, float cap) {  // cap * tanh(x / cap)
  f16x y = x * (2.f / cap);
  f16x a = y < 0.f ? y : -y;  // -|y|
  f16x e = exponential(a);
  f16x t = (1.f - e) / (1.f + e);
  return cap * (y < 0.f ? -t : t);
}

// What one element type needs: how a tile is laid out, and what queries and weights are held as.
template <Dtype D> struct Element;

template <> struct Element<F32> {
  typedef float type;
  typedef float query;
  static constexpr int PER = 1;  // keys or dimensions in one step of a product
  static type to(float x) { return x; }
};

template <> struct Element<F16> {
  typedef _Float16 type;
  typedef float query;
  static constexpr int PER = 1;
  static type to(float x) { return static_cast<type>(x); }
};

template <> struct Element<BF16> {
  typedef uint16_t type;
  typedef uint16_t query;
  static constexpr int PER = 2;
  static type to(float x) { return to_bf16(x); }
};

inline int padded(int dim) { return (dim + 15) / 16 * 16; }

// Zeros to begin with, on cache lines of their own.
template <class T> class Room {
 public:
  Room() = default;
  ~Room() { free(); }
  Room(const Room&) = delete;
  void fit(size_t wanted) {
    if (wanted <= size) return;
    free();
    all = new (LINE) T[wanted](), size = wanted;
  }
  T* data() const { return all; }
  T& operator[](size_t i) const { return all[i]; }

 private:
  static constexpr std::align_val_t LINE{64};
  void free() { ::operator delete[](all, LINE); }
  T* all = nullptr;
  size_t size = 0;
};

#if HAS_TILES
template <bool TWO_ROWS, bool TWO_COLUMNS>
void multiply_tiles(const uint16_t* rows, int64_t row_size, const uint16_t* left, const uint16_t* right,
                    int64_t weights_step, int steps, float* sums, int64_t sums_size) {
  const int64_t line = row_size * 2, next_rows = row_size * 16, width = sums_size * 4;
  have_written(rows);
  _tile_zero(0);
  if (TWO_COLUMNS) _tile_zero(1);
  if (TWO_ROWS) _tile_zero(2);
  if (TWO_ROWS && TWO_COLUMNS) _tile_zero(3);
  for (int s = 0; s < steps; s++, rows += 32, left += weights_step, right += weights_step) {
    _tile_loadd(4, rows, line);
    _tile_loadd(6, left, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (TWO_COLUMNS) {
      _tile_loadd(7, right, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (TWO_ROWS) {
      _tile_loadd(5, rows + next_rows, line);
      _tile_dpbf16ps(2, 5, 6);
      if (TWO_COLUMNS) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, width);
  if (TWO_COLUMNS) _tile_stored(1, sums + 16, width);
  if (TWO_ROWS) _tile_stored(2, sums + 16 * sums_size, width);
  if (TWO_ROWS && TWO_COLUMNS) _tile_stored(3, sums + 16 * sums_size + 16, width);
}
#endif

// 16 or 32 rows by 16 or 32 columns, of bf16. Of each row, `steps` times 32 numbers side by side; each time a tile of
// 16 columns, and `weights_step` numbers on the next one.
inline void multiply(bool two_rows, bool two_columns, const void* rows, int64_t row_size, const void* left,
                     const void* right, int64_t weights_step, int steps, float* sums, int64_t sums_size) {
#if HAS_TILES
  const auto with = two_rows ? two_columns ? multiply_tiles<true, true> : multiply_tiles<true, false>
                             : two_columns ? multiply_tiles<false, true> : multiply_tiles<false, false>;
  with(static_cast<const uint16_t*>(rows), row_size, static_cast<const uint16_t*>(left),
       static_cast<const uint16_t*>(right), weights_step, steps, sums, sums_size);
#else
  (void)two_rows, (void)two_columns, (void)rows, (void)row_size, (void)left, (void)right, (void)weights_step, (void)steps,
      (void)sums, (void)sums_size;
#endif
}

template <Dtype D> class Attention {
  typedef Element<D> E;
  typedef typename E::type T;
  typedef typename E::query Q;

 public:
  Attention(const Layer& layer, const Step& step)
      : layer(layer), step(step), tiled(D == BF16 && layer.key_dim % 32 == 0 && has_tiles()),
        key_tile(layer.key_dim * TILE), value_pad(padded(layer.value_dim)), value_tile(value_pad * TILE),
        tokens_per_unit(std::max(1, (tiled ? TILED_ROWS : ROWS) / layer.group_size)) {
    first_unit.push_back(0);
    for (int s = 0; s < step.num_sequences; s++) {
      int rows = step.starts[s + 1] - step.starts[s];
      first_unit.push_back(first_unit.back() + (rows + tokens_per_unit - 1) / tokens_per_unit);
    }
  }

  void run(Rows q, Rows k, Rows v, T* out) {
    const int num_rows = step.starts[step.num_sequences];
    share(layer.num_kv_heads, num_rows > SERIAL_ROWS ? step.num_threads : 1, [&](Jobs& jobs) {
      for (int64_t h; jobs.take(h);)
        for (int s = 0; s < step.num_sequences; s++) write(s, h, k, v);
    });
    const std::vector<Job> units = jobs_of(step.num_threads * 4);
    share(units.size(), step.num_threads, [&](Jobs& jobs) {
      thread_local Scratch scratch;
      scratch.fit(padded(tokens_per_unit * layer.group_size), layer.key_dim, value_pad, tiled);
      const ShapedTiles shaped(tiled);
      for (int64_t job; jobs.take(job);) {
        const int last = units[job].last;
        for (int u = units[job].first; u < last; u++) {
          const Unit next = u + 1 < last ? unit(u + 1) : Unit{-1, 0, 0};
          attend(unit(u), next, q, out, scratch);
        }
      }
    });
  }

 private:
  // What a thread works in, from step to step. Rows that nobody filled hold numbers all the same.
  struct Scratch {
    void fit(int rows, int key_dim, int value_pad, bool tiled) {
      queries.fit(rows * key_dim), weights.fit(rows * BLOCK), scores.fit(rows * BLOCK), sums.fit(rows * 16);
      maxima.fit(rows), corrections.fit(rows), output.fit(rows * value_pad);
      if (tiled) values.fit(BLOCK * value_pad), products.fit(rows * value_pad);
    }
    Room<Q> queries, weights;
    Room<T> values;
    Room<float> scores, sums, maxima, corrections, products, output;
  };

  T* tile(void* pages, int s, int h, int index, int tile_size) const {
    int64_t block = step.tables[(int64_t)s * step.table_stride + index / step.tiles_per_block];
    int64_t tile = block * step.tiles_per_block + index % step.tiles_per_block;
    return static_cast<T*>(pages) + (tile * layer.num_kv_heads + h) * tile_size;
  }

  void write(int s, int h, Rows k, Rows v) const {
    const int first = step.starts[s], last = step.starts[s + 1];
    for (int t = first; t < last; t++) {
      const int position = step.contexts[s] - (last - t), offset = position % TILE;
      T* kt = tile(layer.keys, s, h, position / TILE, key_tile);
      T* vt = tile(layer.values, s, h, position / TILE, value_tile);
      const T* ks = static_cast<const T*>(k.data) + t * k.token_stride + h * k.head_stride;
      const T* vs = static_cast<const T*>(v.data) + t * v.token_stride + h * v.head_stride;
      if (offset == 0) std::memset(vt, 0, value_tile * sizeof(T));
      for (int d = 0; d < layer.key_dim; d += E::PER)
        std::memcpy(kt + d * TILE + offset * E::PER, ks + d, E::PER * sizeof(T));
      T* row = vt + offset / E::PER * value_pad * E::PER + offset % E::PER;
      for (int d = 0; d < layer.value_dim; d++) row[d * E::PER] = vs[d];
    }
  }

  // Some tokens of a sequence and one head of its keys.
  struct Unit { int s, h, first_token; };

  // Units from `first` to before `last`, of the same tokens.
  struct Job { int first, last; int64_t cost; };

  // About so many jobs of like cost, or one for each part of a sequence's tokens if those are more; the longest first,
  // since the last ones decide how long threads wait for each other. One long context beside short ones is taken apart
  // by its heads.
  std::vector<Job> jobs_of(int wanted) const {
    const int num_parts = first_unit.back(), num_heads = layer.num_kv_heads;
    std::vector<int64_t> costs;
    int64_t total = 0;
    for (int s = 0; s < step.num_sequences; s++)
      for (int part = first_unit[s]; part < first_unit[s + 1]; part++)
        costs.push_back(cost({s, 0, (part - first_unit[s]) * tokens_per_unit})), total += costs.back();
    const int64_t each = total * num_heads / std::max(1, wanted);
    std::vector<Job> jobs;
    for (int part = 0; part < num_parts; part++) {
      const int heads = std::max<int64_t>(1, std::min<int64_t>(num_heads, each / costs[part]));
      for (int h = 0; h < num_heads; h += heads) {
        const int last = std::min(h + heads, num_heads);
        jobs.push_back({part * num_heads + h, part * num_heads + last, costs[part] * (last - h)});
      }
    }
    std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.cost > b.cost; });
    return jobs;
  }

  // What a unit takes: each block of keys is read once, and multiplied with rows 16 at a time.
  int64_t cost(const Unit& u) const {
    const int num_tokens = std::min(step.starts[u.s + 1] - step.starts[u.s] - u.first_token, tokens_per_unit);
    const int num_blocks = (first_position(u) + num_tokens - 1) / BLOCK - first_visible(u) / BLOCK + 1;
    return (int64_t)num_blocks * (1 + (num_tokens * layer.group_size + 15) / 16);
  }

  Unit unit(int number) const {
    const int part = number / layer.num_kv_heads;
    int s = 0;
    // Units of a sequence are consecutive; batches are small, so a scan is cheaper than a stored map.
    while (first_unit[s + 1] <= part) s++;
    return {s, number % layer.num_kv_heads, (part - first_unit[s]) * tokens_per_unit};
  }

  int first_position(const Unit& u) const {
    return step.contexts[u.s] - (step.starts[u.s + 1] - step.starts[u.s]) + u.first_token;
  }

  int first_visible(const Unit& u) const {
    const int position = first_position(u);
    return layer.window > 0 && position >= layer.window ? position - layer.window + 1 : 0;
  }

  // Ask memory for tiles: they lie in pages of their own, where the processor does not read ahead by itself.
  void fetch(void* pages, const Unit& u, int first_tile, int num_tiles, int tile_size) const {
    for (int t = first_tile; t < first_tile + num_tiles; t++) {
      const char* from = reinterpret_cast<const char*>(tile(pages, u.s, u.h, t, tile_size));
      for (size_t i = 0; i < tile_size * sizeof(T); i += 64) __builtin_prefetch(from + i, 0, 2);
    }
  }

  void attend(const Unit& u, const Unit& next, Rows q, T* out, Scratch& w) const {
    const int s = u.s, h = u.h, first_token = u.first_token;
    const int num_new = step.starts[s + 1] - step.starts[s];
    const int num_tokens = num_new - first_token < tokens_per_unit ? num_new - first_token : tokens_per_unit;
    const int num_rows = num_tokens * layer.group_size;
    const int first_position = this->first_position(u), last_position = first_position + num_tokens - 1;
    const int from = first_visible(u), last_block = last_position / BLOCK;

    for (int r = 0; r < num_rows; r++) {
      const int64_t token = step.starts[s] + first_token + r / layer.group_size;
      const T* source = static_cast<const T*>(q.data) + token * q.token_stride +
                        (h * layer.group_size + r % layer.group_size) * q.head_stride;
      for (int d = 0; d < layer.key_dim; d++) w.queries[r * layer.key_dim + d] = static_cast<Q>(source[d]);
      w.maxima[r] = NEG_INF;
    }
    std::memset(w.sums.data(), 0, num_rows * 16 * sizeof(float));
    std::memset(w.output.data(), 0, num_rows * value_pad * sizeof(float));

    for (int block = from / BLOCK; block <= last_block; block++) {
      const int last_tile = last_position / TILE - block * BLOCK_TILES;
      const int num_tiles = last_tile + 1 < BLOCK_TILES ? last_tile + 1 : BLOCK_TILES;
      const int skipped = from / TILE - block * BLOCK_TILES;
      const int first_tile = skipped > 0 ? skipped : 0;
      const T *keys[BLOCK_TILES], *values[BLOCK_TILES];
      for (int t = first_tile; t < num_tiles; t++) {
        keys[t] = tile(layer.keys, s, h, block * BLOCK_TILES + t, key_tile);
        values[t] = tile(layer.values, s, h, block * BLOCK_TILES + t, value_tile);
      }
      fetch(layer.values, u, block * BLOCK_TILES + first_tile, num_tiles - first_tile, value_tile);
      if (tiled) tiled_scores(keys, first_tile, num_tiles, num_rows, w);
      else scores(keys, first_tile, num_tiles, num_rows, w);
      if (block < last_block) {
        const int then = (block + 1) * BLOCK_TILES, left = last_position / TILE + 1 - then;
        fetch(layer.keys, u, then, std::min(left, BLOCK_TILES), key_tile);
      } else if (next.s >= 0) {
        const int then = first_visible(next) / TILE, left = this->first_position(next) / TILE + 1 - then;
        fetch(layer.keys, next, then, std::min(left, BLOCK_TILES), key_tile);
      }
      for (int r = 0; r < num_rows; r++)
        softmax(r, first_position + r / layer.group_size, block, first_tile, num_tiles, w);
      if (tiled) tiled_accumulate(values, first_tile, num_tiles, num_rows, w);
      else accumulate(values, first_tile, num_tiles, num_rows, w);
    }
    for (int r = 0; r < num_rows; r++) {
      const int head = h * layer.group_size + r % layer.group_size;
      const int64_t token = step.starts[s] + first_token + r / layer.group_size;
      finish(r, head, out + (token * layer.num_kv_heads * layer.group_size + head) * layer.value_dim, w);
    }
  }

  // As many sums at a time as there are registers for, of several rows or several tiles.
  void scores(const T* const* tiles, int first_tile, int num_tiles, int num_rows, Scratch& w) const {
    constexpr int SUMS = SUMS_IN_FLIGHT;
    int r = 0;
    for (; r + SUMS <= num_rows; r += SUMS) scores<SUMS, 1>(tiles, first_tile, num_tiles, r, w);
    for (; r + 4 <= num_rows; r += 4) scores<4, SUMS / 4>(tiles, first_tile, num_tiles, r, w);
    for (; r + 2 <= num_rows; r += 2) scores<2, SUMS / 2>(tiles, first_tile, num_tiles, r, w);
    for (; r < num_rows; r++) scores<1, 4>(tiles, first_tile, num_tiles, r, w);
  }

  void accumulate(const T* const* tiles, int first_tile, int num_tiles, int num_rows, Scratch& w) const {
    int r = 0;
    for (; r + 4 <= num_rows; r += 4) accumulate<4, MOST_SUMS / 4>(tiles, first_tile, num_tiles, r, w);
    for (; r + 2 <= num_rows; r += 2) accumulate<2, MOST_SUMS / 2>(tiles, first_tile, num_tiles, r, w);
    for (; r < num_rows; r++) accumulate<1, SUMS_IN_FLIGHT>(tiles, first_tile, num_tiles, r, w);
  }

  void tiled_scores(const T* const* tiles, int first_tile, int num_tiles, int num_rows, Scratch& w) const {
    const int steps = layer.key_dim / 32;
    for (int r = 0; r < num_rows; r += 32)
      for (int t = first_tile; t < num_tiles; t += 2)
        multiply(num_rows - r > 16, num_tiles - t > 1, w.queries.data() + r * layer.key_dim, layer.key_dim, tiles[t],
                 t + 1 < num_tiles ? tiles[t + 1] : nullptr, 32 * TILE, steps, w.scores.data() + r * BLOCK + t * TILE,
                 BLOCK);
  }

  void tiled_accumulate(const T* const* tiles, int first_tile, int num_tiles, int num_rows, Scratch& w) const {
    const int from = first_tile / 2, until = (num_tiles + 1) / 2, size = 32 * value_pad;
    for (int t = from * 2; t < until * 2; t++) {
      T* to = w.values.data() + t / 2 * size + t % 2 * 256;
      const bool is_there = t >= first_tile && t < num_tiles;
      for (int c = 0; c < value_pad / 16; c++, to += 512)
        for (int pair = 0; pair < 8; pair++)
          if (is_there) std::memcpy(to + pair * 32, tiles[t] + pair * value_pad * 2 + c * 32, 64);
          else std::memset(to + pair * 32, 0, 64);
    }
    for (int r = 0; r < num_rows; r += 32)
      for (int c = 0; c < value_pad / 16; c += 2) {
        const T* values = w.values.data() + from * size + c * 512;
        multiply(num_rows - r > 16, c + 1 < value_pad / 16, w.weights.data() + r * BLOCK + from * 32, BLOCK, values,
                 values + 512, size, until - from, w.products.data() + r * value_pad + c * 16, value_pad);
      }
    for (int r = 0; r < num_rows; r++) {
      const f16x correction = broadcast(w.corrections[r]);
      float *out = w.output.data() + r * value_pad, *products = w.products.data() + r * value_pad;
      for (int d = 0; d < value_pad; d += 16) store(out + d, fma(load(out + d), correction, load(products + d)));
    }
  }

  template <int R, int N>
  void scores(const T* const* tiles, int first_tile, int num_tiles, int r, Scratch& w) const {
    int t = first_tile;
    for (; t + N <= num_tiles; t += N) products<R, N>(tiles, t, r, w);
    for (; t < num_tiles; t++) products<R, 1>(tiles, t, r, w);
  }

  template <int R, int N> void products(const T* const* tiles, int t, int r, Scratch& w) const {
    Sums acc[R][N];
    for (int i = 0; i < R; i++)
      for (int n = 0; n < N; n++) acc[i][n] = no_sums();
    const Q* q = w.queries.data() + r * layer.key_dim;
    for (int d = 0; d < layer.key_dim; d += E::PER)
      for (int i = 0; i < R; i++)
        for (int n = 0; n < N; n++)
          acc[i][n] = add_product(acc[i][n], tiles[t + n] + d * TILE, q + i * layer.key_dim + d);
    for (int i = 0; i < R; i++)
      for (int n = 0; n < N; n++) store(w.scores.data() + (r + i) * BLOCK + (t + n) * TILE, acc[i][n]);
  }

  void softmax(int r, int position, int block, int first_tile, int num_tiles, Scratch& w) const {
    const int lowest = layer.window > 0 ? position - layer.window + 1 : 0;
    float* row = w.scores.data() + r * BLOCK;
    Q* weights = w.weights.data() + r * BLOCK;
    if (position < block * BLOCK || lowest >= (block + 1) * BLOCK) {  // nothing of this block is this row's
      std::memset(weights, 0, BLOCK * sizeof(Q));
      w.corrections[r] = 1.f;
      return;
    }
    const bool all = position >= (block + 1) * BLOCK - 1 && lowest <= block * BLOCK;  // then no tile is missing either
    f16x x[BLOCK_TILES];
    f16x highest = broadcast(NEG_INF);
    for (int t = 0; t < BLOCK_TILES; t++) {
      x[t] = broadcast(NEG_INF);
      if (t < first_tile || t >= num_tiles) continue;
      x[t] = load(row + t * TILE) * layer.scale;
      if (layer.softcap > 0) x[t] = capped(x[t], layer.softcap);
      if (!all) x[t] = visible(x[t], block * BLOCK + t * TILE, lowest, position);
      highest = x[t] > highest ? x[t] : highest;
    }
    const float before = w.maxima[r], block_max = reduce_max(highest);
    const float now = block_max > before ? block_max : before;
    const float correction = now == before ? 1.f : before == NEG_INF ? 0.f : exponential(before - now);
    f16x sum = load(w.sums.data() + r * 16) * correction;
    for (int t = 0; t < BLOCK_TILES; t++) {
      f16x p = exponential(x[t] - now);
      if (!all) p = x[t] == NEG_INF ? f16x{} : p;
      sum = sum + p;
      put(weights + t * TILE, p);
    }
    store(w.sums.data() + r * 16, sum);
    w.maxima[r] = now;
    w.corrections[r] = correction;
  }

  // Scores of the keys from `first` on, as far as a row sees them.
  static f16x visible(f16x scores, int first, int lowest, int highest) {
    const i16x at = i16x{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + first;
    return ((at <= highest) & (at >= lowest)) ? scores : broadcast(NEG_INF);
  }

  static void put(float* to, f16x p) { store(to, p); }
  static void put(uint16_t* to, f16x p) {
#if defined(__AVX512BF16__)
    __m256bh b = _mm512_cvtneps_pbh((__m512)p);
    std::memcpy(to, &b, 32);
#else
    for (int i = 0; i < 16; i++) to[i] = to_bf16(p[i]);
#endif
  }

  template <int R, int C>
  void accumulate(const T* const* tiles, int first_tile, int num_tiles, int r, Scratch& w) const {
    int c = 0;
    for (; c + C <= value_pad / 16; c += C) columns<R, C>(tiles, first_tile, num_tiles, r, c, w);
    for (; c + 2 <= value_pad / 16; c += 2) columns<R, 2>(tiles, first_tile, num_tiles, r, c, w);
    for (; c < value_pad / 16; c++) columns<R, 1>(tiles, first_tile, num_tiles, r, c, w);
  }

  template <int R, int C>
  void columns(const T* const* tiles, int first_tile, int num_tiles, int r, int c, Scratch& w) const {
    Sums acc[R][C];
    for (int i = 0; i < R; i++)
      for (int j = 0; j < C; j++)
        acc[i][j] = scaled(w.output.data() + (r + i) * value_pad + (c + j) * 16, w.corrections[r + i]);
    for (int t = first_tile; t < num_tiles; t++)
      for (int key = 0; key < TILE; key += E::PER)
        for (int j = 0; j < C; j++)
          for (int i = 0; i < R; i++)
            acc[i][j] = add_product(acc[i][j], tiles[t] + key * value_pad + (c + j) * 16 * E::PER,
                                  w.weights.data() + (r + i) * BLOCK + t * TILE + key);
    for (int i = 0; i < R; i++)
      for (int j = 0; j < C; j++) store(w.output.data() + (r + i) * value_pad + (c + j) * 16, acc[i][j]);
  }

  void finish(int r, int head, T* out, Scratch& w) const {
    float sum = reduce_sum(load(w.sums.data() + r * 16)), factor = 1.f;
    if (layer.sinks) {
      const float sink = layer.sinks[head], top = sink > w.maxima[r] ? sink : w.maxima[r];
      factor = exponential(w.maxima[r] - top);
      sum = sum * factor + exponential(sink - top);
    }
    factor = factor / sum;
    const float* acc = w.output.data() + r * value_pad;
    for (int d = 0; d < layer.value_dim; d++) out[d] = E::to(acc[d] * factor);
  }

  const Layer& layer;
  const Step& step;
  const bool tiled;
  const int key_tile, value_pad, value_tile, tokens_per_unit;
  std::vector<int> first_unit;
};

}  // namespace

int32_t serin_paged_attention(const Layer* layer, const Step* step, const Rows* q, const Rows* k, const Rows* v,
                              void* out) {
  switch (layer->dtype) {
    case F32: Attention<F32>(*layer, *step).run(*q, *k, *v, static_cast<float*>(out)); return 0;
    case BF16: Attention<BF16>(*layer, *step).run(*q, *k, *v, static_cast<uint16_t*>(out)); return 0;
    case F16: Attention<F16>(*layer, *step).run(*q, *k, *v, static_cast<_Float16*>(out)); return 0;
  }
  return 1;
}
