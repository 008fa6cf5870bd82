// Elementwise activations, RMS normalisation and rotary positions. An element's arithmetic never depends on where it
// stands in the batch: what does not fill a vector is computed in a vector all the same.
#include <algorithm>
#include <cmath>

#include "element.h"
#include "kernels.h"
#include "pool.h"

enum Activation : int32_t { SILU = 0, GELU_TANH = 1 };
enum Norm : int32_t {
  ROUND_THEN_WEIGHT = 0,  // weight * (x / rms rounded to the tensor's type)
  WEIGHT_PLUS_ONE = 1,    // (x / rms) * (1 + weight), rounded once
  WEIGHT_THEN_ROUND = 2,  // (x / rms) * weight, rounded once
};

namespace {

constexpr int LANES = 16;
constexpr int64_t PART = 16384;          // elements that a thread takes at a time
constexpr int64_t SERIAL_BELOW = 32768;  // elements: less is done faster than shared

inline f16x times_sigmoid(f16x x, f16x y) {
  const f16x e = exponential(y < 0.f ? y : -y);
  return x * (y < 0.f ? e : broadcast(1.f)) / (1.f + e);
}

inline f16x silu(f16x x) { return times_sigmoid(x, x); }

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
inline f16x gelu_tanh(f16x x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

// out = of(a, b), element by element; of(a, 0) without b.
template <int32_t D, class Of>
void each(const void* a, const void* b, void* out, int64_t size, int threads, const Of& of) {
  typedef Element<D> E;
  typedef typename E::type T;
  const T *from_a = static_cast<const T*>(a), *from_b = static_cast<const T*>(b);
  T* to = static_cast<T*>(out);
  share((size + PART - 1) / PART, size > SERIAL_BELOW ? threads : 1, [&](Jobs& jobs) {
    for (int64_t part; jobs.take(part);) {
      const int64_t last = std::min(size, (part + 1) * PART);
      int64_t i = part * PART;
      for (; i + LANES <= last; i += LANES) E::write(to + i, of(E::read(from_a + i), b ? E::read(from_b + i) : f16x{}));
      if (i == last) continue;
      T edge_a[LANES] = {}, edge_b[LANES] = {};
      std::memcpy(edge_a, from_a + i, (last - i) * sizeof(T));
      if (b) std::memcpy(edge_b, from_b + i, (last - i) * sizeof(T));
      E::write(edge_a, of(E::read(edge_a), E::read(edge_b)));
      std::memcpy(to + i, edge_a, (last - i) * sizeof(T));
    }
  });
}

// activation(in), times `factor` if there is one; both are rounded to the tensor's type, as two operations would.
template <int32_t D>
void activate(int32_t kind, const void* in, const void* factor, void* out, int64_t size, int threads) {
  each<D>(in, factor, out, size, threads, [&](f16x x, f16x times) {
    const f16x y = kind == SILU ? silu(x) : gelu_tanh(x);
    return factor ? Element<D>::rounded(y) * times : y;
  });
}

template <int32_t D> void add(const void* a, const void* b, void* out, int64_t size, int threads) {
  each<D>(a, b, out, size, threads, [](f16x x, f16x y) { return x + y; });
}

template <int32_t D>
void normalise_row(int32_t kind, const typename Element<D>::type* x, const typename Element<D>::type* w,
                   typename Element<D>::type* y, int32_t width, float eps) {
  typedef Element<D> E;
  typedef typename E::type T;
  T edge_x[LANES] = {}, edge_w[LANES] = {};
  const int whole = width / LANES * LANES, rest = width - whole;
  std::memcpy(edge_x, x + whole, rest * sizeof(T));
  std::memcpy(edge_w, w + whole, rest * sizeof(T));
  f16x squares = {};
  for (int i = 0; i < width; i += LANES) {
    const f16x v = E::read(i < whole ? x + i : edge_x);
    squares = fma(v, v, squares);
  }
  const float factor = 1.f / std::sqrt(reduce_sum(squares) / width + eps);
  for (int i = 0; i < width; i += LANES) {
    const bool is_whole = i < whole;
    const f16x v = E::read(is_whole ? x + i : edge_x) * factor, g = E::read(is_whole ? w + i : edge_w);
    const f16x scaled = kind == ROUND_THEN_WEIGHT ? E::rounded(v) * g : kind == WEIGHT_PLUS_ONE ? v * (1.f + g) : v * g;
    E::write(is_whole ? y + i : edge_x, scaled);
  }
  std::memcpy(y + whole, edge_x, rest * sizeof(T));
}

template <int32_t D>
void normalise(int32_t kind, const void* in, const void* weights, void* out, int64_t rows, int32_t width, float eps,
               int threads) {
  typedef typename Element<D>::type T;
  const T *w = static_cast<const T*>(weights), *x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  const int64_t part = std::max<int64_t>(1, PART / width);  // rows that a thread takes at a time
  share((rows + part - 1) / part, rows * width > SERIAL_BELOW ? threads : 1, [&](Jobs& jobs) {
    for (int64_t p; jobs.take(p);)
      for (int64_t r = p * part; r < std::min(rows, (p + 1) * part); r++)
        normalise_row<D>(kind, x + r * width, w, y + r * width, width, eps);
  });
}

// x * cos + (-second half, first half) * sin for one row; every operation rounded to the tensor's type.
template <int32_t D>
void rotate(const typename Element<D>::type* x, const typename Element<D>::type* cos,
            const typename Element<D>::type* sin, typename Element<D>::type* y, int32_t half) {
  typedef Element<D> E;
  for (int i = 0; i < half; i += LANES) {
    const f16x low = E::read(x + i), high = E::read(x + half + i);
    const f16x a = E::rounded(low * E::read(cos + i)), b = E::rounded(-high * E::read(sin + i));
    const f16x c = E::rounded(high * E::read(cos + half + i)), d = E::rounded(low * E::read(sin + half + i));
    E::write(y + i, a + b);
    E::write(y + half + i, c + d);
  }
}

template <int32_t D>
void rotate_all(const Heads* heads, int32_t num, const Angles& angles, int32_t width, int threads) {
  typedef typename Element<D>::type T;
  int64_t size = 0;
  for (int32_t n = 0; n < num; n++) size += angles.num_tokens * heads[n].num_heads * width;
  const int64_t part = std::max<int64_t>(1, PART / width / std::max<int64_t>(1, heads[0].num_heads));
  share((angles.num_tokens + part - 1) / part, size > SERIAL_BELOW ? threads : 1, [&](Jobs& jobs) {
    for (int64_t p; jobs.take(p);)
      for (int64_t t = p * part; t < std::min(angles.num_tokens, (p + 1) * part); t++) {
        const T* cos = static_cast<const T*>(angles.cos) + t * angles.stride;
        const T* sin = static_cast<const T*>(angles.sin) + t * angles.stride;
        for (const Heads* one = heads; one < heads + num; one++)
          for (int64_t h = 0; h < one->num_heads; h++)
            rotate<D>(static_cast<const T*>(one->in) + t * one->token_stride + h * one->head_stride, cos, sin,
                      static_cast<T*>(one->out) + (t * one->num_heads + h) * width, width / 2);
      }
  });
}

}  // namespace

#define FOR_DTYPE(call)                 \
  return outcome_of([&]() -> int32_t {  \
    switch (dtype) {                    \
      case F32: call(F32); return DONE;   \
      case BF16: call(BF16); return DONE; \
      case F16: call(F16); return DONE;   \
    }                                   \
    return UNKNOWN_TYPE;                \
  })

int32_t serin_rotate(int32_t dtype, const Heads* heads, int32_t num, const Angles* angles, int32_t width,
                     int32_t threads) {
#define ROTATE(D) rotate_all<D>(heads, num, *angles, width, threads)
  FOR_DTYPE(ROTATE);
}

int32_t serin_activate(int32_t kind, int32_t dtype, const void* in, const void* factor, void* out, int64_t size,
                       int32_t threads) {
#define ACTIVATE(D) activate<D>(kind, in, factor, out, size, threads)
  FOR_DTYPE(ACTIVATE);
}

int32_t serin_rms_norm(int32_t kind, int32_t dtype, const void* in, const void* weights, void* out, int64_t rows,
                       int32_t width, float eps, int32_t threads) {
#define NORMALISE(D) normalise<D>(kind, in, weights, out, rows, width, eps, threads)
  FOR_DTYPE(NORMALISE);
}

int32_t serin_add(int32_t dtype, const void* a, const void* b, void* out, int64_t size, int32_t threads) {
#define ADD(D) add<D>(a, b, out, size, threads)
  FOR_DTYPE(ADD);
}
