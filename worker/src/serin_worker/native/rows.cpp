// Elementwise activations and RMS normalisation. An element's arithmetic never depends on where it stands in the batch:
// what does not fill a vector is computed in a vector all the same.
#include <algorithm>
#include <cmath>

#include "element.h"
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

template <int32_t D> void activate(int32_t kind, const void* in, void* out, int64_t size, int threads) {
  typedef Element<D> E;
  const auto* from = static_cast<const typename E::type*>(in);
  auto* to = static_cast<typename E::type*>(out);
  share((size + PART - 1) / PART, size > SERIAL_BELOW ? threads : 1, [&](Jobs& jobs) {
    for (int64_t part; jobs.take(part);)
      for (int64_t i = part * PART; i < std::min(size, (part + 1) * PART); i += LANES) {
        const int64_t n = size - i;
        typename E::type edge[LANES] = {};
        const bool is_whole = n >= LANES;
        if (!is_whole) std::memcpy(edge, from + i, n * sizeof edge[0]);
        const f16x x = E::read(is_whole ? from + i : edge);
        const f16x y = kind == SILU ? silu(x) : gelu_tanh(x);
        E::write(is_whole ? to + i : edge, y);
        if (!is_whole) std::memcpy(to + i, edge, n * sizeof edge[0]);
      }
  });
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

}  // namespace

extern "C" int serin_activate(int32_t kind, int32_t dtype, const void* in, void* out, int64_t size, int32_t threads) {
  switch (dtype) {
    case F32: activate<F32>(kind, in, out, size, threads); return 0;
    case BF16: activate<BF16>(kind, in, out, size, threads); return 0;
    case F16: activate<F16>(kind, in, out, size, threads); return 0;
  }
  return 1;
}

extern "C" int serin_rms_norm(int32_t kind, int32_t dtype, const void* in, const void* weights, void* out, int64_t rows,
                              int32_t width, float eps, int32_t threads) {
  switch (dtype) {
    case F32: normalise<F32>(kind, in, weights, out, rows, width, eps, threads); return 0;
    case BF16: normalise<BF16>(kind, in, weights, out, rows, width, eps, threads); return 0;
    case F16: normalise<F16>(kind, in, weights, out, rows, width, eps, threads); return 0;
  }
  return 1;
}
