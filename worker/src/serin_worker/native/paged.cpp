// Paged attention on a CPU: keys and values are written to their pages, then every query row reads its pages in place.
//
// A row's arithmetic depends on its position and its sequence's tokens alone. Keys are visited in blocks of 256 aligned
// to the sequence's start, each block in the same order, with an online softmax (Milakov & Gimelshein 2018); rows only
// share loads. So a row is bit for bit the same alone, in a batch, in a prompt's chunk and as a decode.
//
// Weights are measured against a maximum that is raised when a score is more than 2^8 above it: what has been summed so
// far is rarely touched again (the idea is that of FlashAttention-4), and a sum of 2^8s is as exact as one of ones.
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

constexpr int TILE = 16, BLOCK_TILES = 16, BLOCK = TILE * BLOCK_TILES;
constexpr int STRIP = 32;                           // rows whose scores are in the nearest cache
constexpr int MOST_ROWS = 256, LEAST_ROWS = STRIP;  // that read a block of keys one after the other
constexpr int SERIAL_ROWS = 8;                      // fewer are written faster than shared
constexpr float ROOM = 8.f;                         // for scores above what they are measured against, a power of two
constexpr float LOG2_E = 1.44269504f;

inline f16x capped(f16x x, float cap) {  // cap * tanh(x / cap)
  f16x y = x * (2.f / cap);
  f16x a = y < 0.f ? y : -y;  // -|y|
  f16x e = exponential(a);
  f16x t = (1.f - e) / (1.f + e);
  return cap * (y < 0.f ? -t : t);
}

// What one element type needs: how a tile is laid out, and what queries and weights are held as.
template <Dtype D> struct Layout;

template <> struct Layout<F32> {
  typedef float type;
  typedef float query;
  static constexpr int PER = 1;  // keys or dimensions in one step of a product
  static type to(float x) { return x; }
};

template <> struct Layout<F16> {
  typedef _Float16 type;
  typedef float query;
  static constexpr int PER = 1;
  static type to(float x) { return static_cast<type>(x); }
};

template <> struct Layout<BF16> {
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
    all = nullptr, size = 0;  // as it is if there is no memory
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
template <bool ADDED, bool TWO_ROWS, bool TWO_COLUMNS>
void multiply_tiles(const uint16_t* rows, int64_t row_size, const uint16_t* left, const uint16_t* right,
                    int64_t weights_step, int steps, float* sums, int64_t sums_size) {
  const int64_t line = row_size * 2, next_rows = row_size * 16, width = sums_size * 4;
  float* lower = sums + 16 * sums_size;
  have_written(rows);
  if (ADDED) {
    _tile_loadd(0, sums, width);
    if (TWO_COLUMNS) _tile_loadd(1, sums + 16, width);
    if (TWO_ROWS) _tile_loadd(2, lower, width);
    if (TWO_ROWS && TWO_COLUMNS) _tile_loadd(3, lower + 16, width);
  } else {
    _tile_zero(0);
    if (TWO_COLUMNS) _tile_zero(1);
    if (TWO_ROWS) _tile_zero(2);
    if (TWO_ROWS && TWO_COLUMNS) _tile_zero(3);
  }
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
  if (TWO_ROWS) _tile_stored(2, lower, width);
  if (TWO_ROWS && TWO_COLUMNS) _tile_stored(3, lower + 16, width);
}
#endif

// 16 or 32 rows by 16 or 32 columns, of bf16, into `sums` or added to them. Of each row, `steps` times 32 numbers side
// by side; each time a tile of 16 columns, and `weights_step` numbers on the next one.
template <bool ADDED>
inline void multiply(bool two_rows, bool two_columns, const void* rows, int64_t row_size, const void* left,
                     const void* right, int64_t weights_step, int steps, float* sums, int64_t sums_size) {
#if HAS_TILES
  const auto with = two_rows ? two_columns ? multiply_tiles<ADDED, true, true> : multiply_tiles<ADDED, true, false>
                             : two_columns ? multiply_tiles<ADDED, false, true> : multiply_tiles<ADDED, false, false>;
  with(static_cast<const uint16_t*>(rows), row_size, static_cast<const uint16_t*>(left),
       static_cast<const uint16_t*>(right), weights_step, steps, sums, sums_size);
#else
  (void)two_rows, (void)two_columns, (void)rows, (void)row_size, (void)left, (void)right, (void)weights_step, (void)steps,
      (void)sums, (void)sums_size;
#endif
}

template <Dtype D> class Attention {
  typedef Layout<D> E;
  typedef typename E::type T;
  typedef typename E::query Q;

 public:
  Attention(const Layer& layer, const Step& step)
      : layer(layer), step(step), tiled(D == BF16 && layer.key_dim % 32 == 0 && has_tiles()),
        key_tile(layer.key_dim * TILE), value_pad(padded(layer.value_dim)), value_tile(value_pad * TILE),
        factor(layer.softcap > 0 ? LOG2_E : layer.scale * LOG2_E) {
    // Many rows read their keys once; as few as keep all threads busy, since some units have more keys than others.
    for (int rows = MOST_ROWS;; rows /= 2) {
      tokens_per_unit = std::max(1, rows / layer.group_size);
      first_unit.assign(1, 0);
      for (int s = 0; s < step.num_sequences; s++) {
        const int num_tokens = step.starts[s + 1] - step.starts[s];
        first_unit.push_back(first_unit.back() + (num_tokens + tokens_per_unit - 1) / tokens_per_unit);
      }
      if (rows <= LEAST_ROWS || first_unit.back() * layer.num_kv_heads >= jobs_wanted()) return;
    }
  }

  void run(Rows q, Rows k, Rows v, T* out) {
    const int num_rows = step.starts[step.num_sequences];
    share(layer.num_kv_heads, num_rows > SERIAL_ROWS ? step.num_threads : 1, [&](Jobs& jobs) {
      for (int64_t h; jobs.take(h);)
        for (int s = 0; s < step.num_sequences; s++) write(s, h, k, v);
    });
    const std::vector<Job> units = jobs();
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
  // What a thread works in, from step to step. Tiles have 16 rows: what is in those that nobody filled is computed too,
  // and meets nobody else's.
  struct Scratch {
    void fit(int rows, int key_dim, int value_pad, bool tiled) {
      queries.fit(rows * key_dim), sums.fit(rows * TILE), maxima.fit(rows), output.fit(rows * value_pad);
      scores.fit(STRIP * BLOCK), weights.fit(STRIP * BLOCK);
      if (tiled) values.fit(BLOCK * value_pad);
    }
    Room<Q> queries, weights;
    Room<T> values;
    Room<float> scores, sums, maxima, output;
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

  int jobs_wanted() const { return step.num_threads * 4; }

  // About so many jobs of like cost, or one for each part of a sequence's tokens if those are more; the longest first,
  // since the last ones decide how long threads wait for each other. One long context beside short ones is taken apart
  // by its heads.
  std::vector<Job> jobs() const {
    const int num_parts = first_unit.back(), num_heads = layer.num_kv_heads;
    std::vector<int64_t> costs;
    int64_t total = 0;
    for (int s = 0; s < step.num_sequences; s++)
      for (int part = first_unit[s]; part < first_unit[s + 1]; part++)
        costs.push_back(cost({s, 0, (part - first_unit[s]) * tokens_per_unit})), total += costs.back();
    const int64_t each = total * num_heads / std::max(1, jobs_wanted());
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

  int first_visible(const Unit& u) const { return std::max(0, lowest(first_position(u))); }

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
    std::memset(w.sums.data(), 0, num_rows * TILE * sizeof(float));
    std::memset(w.output.data(), 0, num_rows * value_pad * sizeof(float));

    for (int block = from / BLOCK; block <= last_block; block++) {
      const int first_key = block * BLOCK, first_tile = std::max(0, from / TILE - block * BLOCK_TILES);
      const int num_tiles = std::min(BLOCK_TILES, last_position / TILE - block * BLOCK_TILES + 1);
      const T *keys[BLOCK_TILES], *values[BLOCK_TILES];
      for (int t = first_tile; t < num_tiles; t++) {
        keys[t] = tile(layer.keys, s, h, block * BLOCK_TILES + t, key_tile);
        values[t] = tile(layer.values, s, h, block * BLOCK_TILES + t, value_tile);
      }
      fetch(layer.values, u, block * BLOCK_TILES + first_tile, num_tiles - first_tile, value_tile);
      bool is_first = true;
      for (int r = 0; r < num_rows; r += STRIP) {
        Strip strip{r, std::min(STRIP, num_rows - r), first_key, first_tile, num_tiles, first_position};
        const int last = position(strip, strip.num_rows - 1);
        if (last < first_key || lowest(position(strip, 0)) >= first_key + BLOCK) continue;
        strip.num_tiles = std::min(num_tiles, (last - first_key) / TILE + 1);
        if (tiled) tiled_scores(keys, strip, w);
        else scores(keys, strip, w);
        if (is_first) {
          is_first = false;
          fetch_next(u, next, block, last_block, last_position);
          if (tiled) put_together(values, first_tile, num_tiles, w);
        }
        softmax(strip, w);
        if (tiled) tiled_accumulate(strip, w);
        else accumulate(values, strip, w);
      }
    }
    for (int r = 0; r < num_rows; r++) {
      const int head = h * layer.group_size + r % layer.group_size;
      const int64_t token = step.starts[s] + first_token + r / layer.group_size;
      finish(r, head, out + (token * layer.num_kv_heads * layer.group_size + head) * layer.value_dim, w);
    }
  }

  // Keys that are read next.
  void fetch_next(const Unit& u, const Unit& next, int block, int last_block, int last_position) const {
    if (block < last_block) {
      const int then = (block + 1) * BLOCK_TILES, left = last_position / TILE + 1 - then;
      fetch(layer.keys, u, then, std::min(left, BLOCK_TILES), key_tile);
    } else if (next.s >= 0) {
      const int then = first_visible(next) / TILE, left = first_position(next) / TILE + 1 - then;
      fetch(layer.keys, next, then, std::min(left, BLOCK_TILES), key_tile);
    }
  }

  // Some rows of a unit and the tiles of a block that any of them sees.
  struct Strip { int first_row, num_rows, first_key, first_tile, num_tiles, first_position; };

  int position(const Strip& s, int row) const { return s.first_position + (s.first_row + row) / layer.group_size; }
  int lowest(int position) const { return layer.window > 0 ? position - layer.window + 1 : 0; }

  // As many sums at a time as there are registers for, of several rows or several tiles.
  void scores(const T* const* tiles, const Strip& s, Scratch& w) const {
    constexpr int SUMS = SUMS_IN_FLIGHT;
    int r = 0;
    for (; r + SUMS <= s.num_rows; r += SUMS) scores<SUMS, 1>(tiles, s, r, w);
    for (; r + 4 <= s.num_rows; r += 4) scores<4, SUMS / 4>(tiles, s, r, w);
    for (; r + 2 <= s.num_rows; r += 2) scores<2, SUMS / 2>(tiles, s, r, w);
    for (; r < s.num_rows; r++) scores<1, 4>(tiles, s, r, w);
  }

  void accumulate(const T* const* tiles, const Strip& s, Scratch& w) const {
    int r = 0;
    for (; r + 4 <= s.num_rows; r += 4) accumulate<4, MOST_SUMS / 4>(tiles, s, r, w);
    for (; r + 2 <= s.num_rows; r += 2) accumulate<2, MOST_SUMS / 2>(tiles, s, r, w);
    for (; r < s.num_rows; r++) accumulate<1, SUMS_IN_FLIGHT>(tiles, s, r, w);
  }

  void tiled_scores(const T* const* tiles, const Strip& s, Scratch& w) const {
    const Q* queries = w.queries.data() + s.first_row * layer.key_dim;
    for (int t = s.first_tile; t < s.num_tiles; t += 2) {
      const bool two = t + 1 < s.num_tiles;
      multiply<false>(s.num_rows > TILE, two, queries, layer.key_dim, tiles[t], tiles[two ? t + 1 : t], 32 * TILE,
                      layer.key_dim / 32, w.scores.data() + t * TILE, BLOCK);
    }
  }

  // A block's values, two tiles side by side.
  void put_together(const T* const* tiles, int first_tile, int num_tiles, Scratch& w) const {
    for (int t = first_tile / 2 * 2; t < (num_tiles + 1) / 2 * 2; t++) {
      T* to = w.values.data() + t / 2 * 32 * value_pad + t % 2 * 256;
      const bool is_there = t >= first_tile && t < num_tiles;
      for (int c = 0; c < value_pad / 16; c++, to += 512)
        for (int pair = 0; pair < 8; pair++)
          if (is_there) std::memcpy(to + pair * 32, tiles[t] + pair * value_pad * 2 + c * 32, 64);
          else std::memset(to + pair * 32, 0, 64);
    }
  }

  void tiled_accumulate(const Strip& s, Scratch& w) const {
    const int from = s.first_tile / 2, until = (s.num_tiles + 1) / 2, size = 32 * value_pad;
    const Q* weights = w.weights.data() + from * 32;
    float* output = w.output.data() + s.first_row * value_pad;
    for (int c = 0; c < value_pad / 16; c += 2) {
      const T* values = w.values.data() + from * size + c * 512;
      multiply<true>(s.num_rows > TILE, c + 1 < value_pad / 16, weights, BLOCK, values, values + 512, size, until - from,
                     output + c * 16, value_pad);
    }
  }

  template <int R, int N>
  void scores(const T* const* tiles, const Strip& s, int r, Scratch& w) const {
    int t = s.first_tile;
    for (; t + N <= s.num_tiles; t += N) products<R, N>(tiles, s, t, r, w);
    for (; t < s.num_tiles; t++) products<R, 1>(tiles, s, t, r, w);
  }

  template <int R, int N> void products(const T* const* tiles, const Strip& s, int t, int r, Scratch& w) const {
    Sums acc[R][N];
    for (int i = 0; i < R; i++)
      for (int n = 0; n < N; n++) acc[i][n] = no_sums();
    const Q* q = w.queries.data() + (s.first_row + r) * layer.key_dim;
    for (int d = 0; d < layer.key_dim; d += E::PER)
      for (int i = 0; i < R; i++)
        for (int n = 0; n < N; n++)
          acc[i][n] = add_product(acc[i][n], tiles[t + n] + d * TILE, q + i * layer.key_dim + d);
    for (int i = 0; i < R; i++)
      for (int n = 0; n < N; n++) store(w.scores.data() + (r + i) * BLOCK + (t + n) * TILE, acc[i][n]);
  }

  // Weights of a strip's scores, and what they do to its rows' sums so far.
  void softmax(const Strip& s, Scratch& w) const {
    const bool all = layer.softcap <= 0 && s.num_tiles == BLOCK_TILES && position(s, 0) >= s.first_key + BLOCK - 1 &&
                     lowest(position(s, s.num_rows - 1)) <= s.first_key;
    if (all) softmax<true>(s, w);
    else softmax<false>(s, w);
  }

  // `ALL`: every row sees the whole block. A row makes the same bits either way, as far as its scores are finite: one of
  // minus infinity weighs 2^-126 here and nothing there.
  template <bool ALL> void softmax(const Strip& s, Scratch& w) const {
    alignas(64) float tops[STRIP];
    f16x highest[TILE];
    for (int first = 0; first < s.num_rows; first += TILE) {
      const int num_rows = std::min(TILE, s.num_rows - first);
      for (int i = 0; i < num_rows; i++)
        highest[i] = this->highest<ALL>(s, first + i, w.scores.data() + (first + i) * BLOCK);
      if (num_rows == TILE) store(tops + first, reduce_max(highest));
      else for (int i = 0; i < num_rows; i++) tops[first + i] = reduce_max(highest[i]);
    }
    for (int i = 0; i < s.num_rows; i++) {
      const float top = tops[i] * factor;
      if (top > w.maxima[s.first_row + i] + ROOM) raise(s.first_row + i, top, w);
    }
    const f16x factor = broadcast(this->factor);
    const int from = ALL ? 0 : s.first_tile / 2 * 2, until = ALL ? BLOCK_TILES : s.num_tiles;
    for (int i = 0; i < s.num_rows; i++) {
      const float maximum = w.maxima[s.first_row + i];
      const f16x less = broadcast(maximum == NEG_INF ? 0.f : -maximum);
      float *scores = w.scores.data() + i * BLOCK, *sums = w.sums.data() + (s.first_row + i) * TILE;
      f16x sum = load(sums);
      for (int t = from; t < until; t += 2) {  // as tiles multiply weights: two and two
        f16x p[2];
        for (int j = 0; j < 2; j++) {
          const f16x x = load(scores + (t + j) * TILE);
          p[j] = power_of_two(fma(x, factor, less));
          if (!ALL) p[j] = t + j >= s.first_tile && t + j < until ? x == NEG_INF ? f16x{} : p[j] : f16x{};
          sum = sum + p[j];
        }
        put(w.weights.data() + i * BLOCK + t * TILE, p[0], p[1]);
      }
      store(sums, sum);
    }
  }

  // The largest scores of a row; those that are capped are written back, and those that it does not see.
  template <bool ALL> f16x highest(const Strip& s, int r, float* scores) const {
    const int position = this->position(s, r), lowest = this->lowest(position);
    f16x highest = broadcast(NEG_INF);
    for (int t = ALL ? 0 : s.first_tile; t < (ALL ? BLOCK_TILES : s.num_tiles); t++) {
      f16x x = load(scores + t * TILE);
      if (!ALL) {
        if (layer.softcap > 0) x = capped(x * layer.scale, layer.softcap);
        x = visible(x, s.first_key + t * TILE, lowest, position);
        store(scores + t * TILE, x);
      }
      highest = x > highest ? x : highest;
    }
    return highest;
  }

  // A row's sums so far, for what they are measured against from now on.
  void raise(int r, float maximum, Scratch& w) const {
    const float before = w.maxima[r], less = before == NEG_INF ? 0.f : power_of_two(before - maximum);
    float *sums = w.sums.data() + r * TILE, *output = w.output.data() + r * value_pad;
    store(sums, load(sums) * less);
    for (int d = 0; d < value_pad; d += 16) store(output + d, load(output + d) * less);
    w.maxima[r] = maximum;
  }

  // Scores of the keys from `first` on, as far as a row sees them.
  static f16x visible(f16x scores, int first, int lowest, int highest) {
    const i16x at = i16x{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + first;
    return ((at <= highest) & (at >= lowest)) ? scores : broadcast(NEG_INF);
  }

  static void put(float* to, f16x low, f16x high) { store(to, low), store(to + 16, high); }
  static void put(uint16_t* to, f16x low, f16x high) {
#if defined(__AVX512BF16__)
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    std::memcpy(to, &both, 64);
#else
    for (int i = 0; i < 16; i++) to[i] = to_bf16(low[i]), to[i + 16] = to_bf16(high[i]);
#endif
  }

  template <int R, int C>
  void accumulate(const T* const* tiles, const Strip& s, int r, Scratch& w) const {
    int c = 0;
    for (; c + C <= value_pad / 16; c += C) columns<R, C>(tiles, s, r, c, w);
    for (; c + 2 <= value_pad / 16; c += 2) columns<R, 2>(tiles, s, r, c, w);
    for (; c < value_pad / 16; c++) columns<R, 1>(tiles, s, r, c, w);
  }

  template <int R, int C>
  void columns(const T* const* tiles, const Strip& s, int r, int c, Scratch& w) const {
    Sums acc[R][C];
    float* output = w.output.data() + (s.first_row + r) * value_pad + c * 16;
    for (int i = 0; i < R; i++)
      for (int j = 0; j < C; j++) acc[i][j] = sums_at(output + i * value_pad + j * 16);
    for (int t = s.first_tile; t < s.num_tiles; t++)
      for (int key = 0; key < TILE; key += E::PER)
        for (int j = 0; j < C; j++)
          for (int i = 0; i < R; i++)
            acc[i][j] = add_product(acc[i][j], tiles[t] + key * value_pad + (c + j) * 16 * E::PER,
                                    w.weights.data() + (r + i) * BLOCK + t * TILE + key);
    for (int i = 0; i < R; i++)
      for (int j = 0; j < C; j++) store(output + i * value_pad + j * 16, acc[i][j]);
  }

  void finish(int r, int head, T* out, Scratch& w) const {
    float sum = reduce_sum(load(w.sums.data() + r * TILE)), rest = 1.f;
    if (layer.sinks) {
      const float sink = layer.sinks[head] * LOG2_E, top = sink > w.maxima[r] ? sink : w.maxima[r];
      rest = power_of_two(w.maxima[r] - top);
      sum = sum * rest + power_of_two(sink - top);
    }
    rest = rest / sum;
    const float* acc = w.output.data() + r * value_pad;
    for (int d = 0; d < layer.value_dim; d++) out[d] = E::to(acc[d] * rest);
  }

  const Layer& layer;
  const Step& step;
  const bool tiled;
  const int key_tile, value_pad, value_tile;
  const float factor;  // of a score as it is compared: a power of two's exponent
  int tokens_per_unit;
  std::vector<int> first_unit;
};

}  // namespace

int32_t serin_paged_attention(const Layer* layer, const Step* step, const Rows* q, const Rows* k, const Rows* v,
                              void* out) {
  return outcome_of([&]() -> int32_t {
    switch (layer->dtype) {
      case F32: Attention<F32>(*layer, *step).run(*q, *k, *v, static_cast<float*>(out)); return DONE;
      case BF16: Attention<BF16>(*layer, *step).run(*q, *k, *v, static_cast<uint16_t*>(out)); return DONE;
      case F16: Attention<F16>(*layer, *step).run(*q, *k, *v, static_cast<_Float16*>(out)); return DONE;
    }
    return UNKNOWN_TYPE;
  });
}
