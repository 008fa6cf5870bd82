// Vectors of 16 floats that any compiler lowers to what the processor has, and the few functions the kernels share.
//
// Compiled without contraction: a product and a sum are fused where fma() says so and nowhere else, or the same line would
// round differently in different unrollings of one loop.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef float f16x __attribute__((vector_size(64)));
typedef float f8x __attribute__((vector_size(32)));
typedef int32_t i16x __attribute__((vector_size(64)));
typedef uint32_t u16x __attribute__((vector_size(64)));
typedef _Float16 h16x __attribute__((vector_size(32)));

enum Dtype : int32_t { F32 = 0, BF16 = 1, F16 = 2 };

constexpr float NEG_INF = -std::numeric_limits<float>::infinity();

inline f16x broadcast(float x) { return f16x{} + x; }
inline f16x load(const float* p) { f16x v; std::memcpy(&v, p, 64); return v; }
inline void store(float* p, f16x v) { std::memcpy(p, &v, 64); }
inline f16x as_float(u16x u) { f16x v; std::memcpy(&v, &u, 64); return v; }
inline u16x as_bits(f16x f) { u16x v; std::memcpy(&v, &f, 64); return v; }

template <int I> inline f8x half(f16x v) {
  return __builtin_shufflevector(v, v, I, I + 1, I + 2, I + 3, I + 4, I + 5, I + 6, I + 7);
}

// a * b + c, rounded once where the processor can
inline f16x fma(f16x a, f16x b, f16x c) {
#if defined(__AVX512F__)
  return (f16x)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  const f8x low = (f8x)_mm256_fmadd_ps((__m256)half<0>(a), (__m256)half<0>(b), (__m256)half<0>(c));
  const f8x high = (f8x)_mm256_fmadd_ps((__m256)half<8>(a), (__m256)half<8>(b), (__m256)half<8>(c));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__aarch64__)
  f16x r;
  for (int i = 0; i < 16; i += 4) {
    float32x4_t x, y, z;
    std::memcpy(&x, (const float*)&a + i, 16);
    std::memcpy(&y, (const float*)&b + i, 16);
    std::memcpy(&z, (const float*)&c + i, 16);
    z = vfmaq_f32(z, x, y);
    std::memcpy((float*)&r + i, &z, 16);
  }
  return r;
#else
  return a * b + c;
#endif
}

// Sixteen running sums. Where registers hold eight floats they are a pair, and said so: left to the compiler, a vector
// twice as wide as a register lives in memory.
#if defined(__FMA__) && !defined(__AVX512F__)
struct Sums { __m256 low, high; };
constexpr int SUMS_IN_FLIGHT = 4, MOST_SUMS = 4;  // as many as registers hold beside what they are fed from
inline Sums no_sums() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Sums sums_at(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Sums s) { _mm256_storeu_ps(p, s.low); _mm256_storeu_ps(p + 8, s.high); }
inline Sums add_product(Sums s, const float* tile, const float* scalar) {
  const __m256 b = _mm256_broadcast_ss(scalar);
  return {_mm256_fmadd_ps(_mm256_loadu_ps(tile), b, s.low), _mm256_fmadd_ps(_mm256_loadu_ps(tile + 8), b, s.high)};
}
inline Sums add_product(Sums s, const _Float16* tile, const float* scalar) {
  const __m256 b = _mm256_broadcast_ss(scalar);
  const __m128i *half = (const __m128i*)tile;
  return {_mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(half)), b, s.low),
          _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(half + 1)), b, s.high)};
}
inline __m256 add_pairs(__m256 sum, __m256i tile, __m256 even, __m256 odd) {
  sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(tile, 16)), even, sum);
  const __m256i upper = _mm256_and_si256(tile, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  return _mm256_fmadd_ps(_mm256_castsi256_ps(upper), odd, sum);
}
inline Sums add_product_of_pairs(Sums s, const uint16_t* tile, const float* pair) {  // the same, the pair widened
  const __m256 even = _mm256_broadcast_ss(pair), odd = _mm256_broadcast_ss(pair + 1);
  const __m256i* part = (const __m256i*)tile;
  return {add_pairs(s.low, _mm256_loadu_si256(part), even, odd),
          add_pairs(s.high, _mm256_loadu_si256(part + 1), even, odd)};
}
inline Sums add_product(Sums s, const uint16_t* tile, const uint16_t* pair) {  // pairs of bf16, side by side
  int32_t both;
  std::memcpy(&both, pair, 4);
  const __m256i all = _mm256_set1_epi32(both), upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(all, 16));
  const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(all, upper));
  const __m256i* part = (const __m256i*)tile;
  return {add_pairs(s.low, _mm256_loadu_si256(part), even, odd),
          add_pairs(s.high, _mm256_loadu_si256(part + 1), even, odd)};
}
#else
struct Sums { f16x all; };
constexpr int SUMS_IN_FLIGHT = 8, MOST_SUMS = 16;  // fewer would wait for each other's additions
inline Sums no_sums() { return {f16x{}}; }
inline Sums sums_at(const float* p) { return {load(p)}; }
inline void store(float* p, Sums s) { store(p, s.all); }
inline Sums add_product(Sums s, const float* tile, const float* scalar) {
  return {fma(load(tile), broadcast(*scalar), s.all)};
}
inline Sums add_product(Sums s, const _Float16* tile, const float* scalar) {
  h16x h;
  std::memcpy(&h, tile, 32);
  return {fma(__builtin_convertvector(h, f16x), broadcast(*scalar), s.all)};
}
inline Sums add_product(Sums s, const uint16_t* tile, const uint16_t* pair) {  // pairs of bf16, side by side
  uint32_t both;
  std::memcpy(&both, pair, 4);
  u16x v;
  std::memcpy(&v, tile, 64);
  u16x b = u16x{} + both;
#if defined(__AVX512BF16__)
  return {(f16x)_mm512_dpbf16_ps((__m512)s.all, (__m512bh)v, (__m512bh)b)};
#else
  f16x sum = fma(as_float(v << 16), as_float(b << 16), s.all);
  return {fma(as_float(v & 0xffff0000u), as_float(b & 0xffff0000u), sum)};
#endif
}
inline Sums add_product_of_pairs(Sums s, const uint16_t* tile, const float* pair) {  // the same, the pair widened
  u16x v;
  std::memcpy(&v, tile, 64);
  return {fma(as_float(v & 0xffff0000u), broadcast(pair[1]), fma(as_float(v << 16), broadcast(pair[0]), s.all))};
}
#endif

inline float reduce_max(f16x v) {
  typedef float f4x __attribute__((vector_size(16)));
  const f8x low = half<0>(v), high = half<8>(v), both = low > high ? low : high;
  f4x four = __builtin_shufflevector(both, both, 0, 1, 2, 3), rest = __builtin_shufflevector(both, both, 4, 5, 6, 7);
  four = four > rest ? four : rest;
  rest = __builtin_shufflevector(four, four, 2, 3, 0, 1);
  four = four > rest ? four : rest;
  return four[0] > four[1] ? four[0] : four[1];
}

inline float reduce_sum(f16x v) {
  float s[16];
  store(s, v);
  for (int w = 8; w > 0; w /= 2)
    for (int i = 0; i < w; i++) s[i] += s[i + w];
  return s[0];
}

// e^x within 2e-7 for x <= 0; below -87 it is about 1e-38.
inline f16x exponential(f16x x) {
  x = x < -87.f ? broadcast(-87.f) : x;
  f16x n = fma(x, broadcast(1.44269504f), broadcast(12582912.f)) - 12582912.f;
  f16x f = fma(n, broadcast(-0.693359375f), x);
  f = fma(n, broadcast(2.12194440e-4f), f);
  f16x p = broadcast(1.9875691500e-4f);
  p = fma(p, f, broadcast(1.3981999507e-3f));
  p = fma(p, f, broadcast(8.3334519073e-3f));
  p = fma(p, f, broadcast(4.1665795894e-2f));
  p = fma(p, f, broadcast(1.6666665459e-1f));
  p = fma(p, f, broadcast(5.0000001201e-1f));
  p = fma(p * f, f, f + 1.f);
  i16x e = (__builtin_convertvector(n, i16x) + 127) << 23;
  f16x scale;
  std::memcpy(&scale, &e, 64);
  return p * scale;
}

// 2^x within 2e-7 for x <= 126; below -126 it is about 1e-38. Exact for whole numbers; NaN of NaN.
inline f16x power_of_two(f16x x) {
  x = x < -126.f ? broadcast(-126.f) : x;
  const f16x shifted = x + (12582912.f + 127.f);  // its last bits are the exponent of the nearest power
  const f16x f = x - (shifted - (12582912.f + 127.f));
  f16x p = broadcast(1.3264728477e-3f);
  p = fma(p, f, broadcast(9.6715129912e-3f));
  p = fma(p, f, broadcast(5.5507335812e-2f));
  p = fma(p, f, broadcast(2.4022242427e-1f));
  p = fma(p, f, broadcast(6.9314700365e-1f));
  p = fma(p, f, broadcast(1.f));
  return p * as_float(as_bits(shifted) << 23);
}

inline float power_of_two(float x) { return power_of_two(broadcast(x))[0]; }

// The largest of each of 16 vectors, as one vector; changes them.
inline f16x reduce_max(f16x (&v)[16]) {
  for (int i = 0; i < 8; i++) {
    const f16x a = v[i], b = v[i + 8];
    const f16x x = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    const f16x y = __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    v[i] = x > y ? x : y;
  }
  for (int i = 0; i < 4; i++) {
    const f16x a = v[i], b = v[i + 4];
    const f16x x = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    const f16x y = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    v[i] = x > y ? x : y;
  }
  for (int i = 0; i < 2; i++) {
    const f16x a = v[i], b = v[i + 2];
    const f16x x = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    const f16x y = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    v[i] = x > y ? x : y;
  }
  const f16x x = __builtin_shufflevector(v[0], v[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
  const f16x y = __builtin_shufflevector(v[0], v[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
  return x > y ? x : y;
}

inline uint16_t to_bf16(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 64);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

inline float from_bf16(uint16_t x) {
  uint32_t u = static_cast<uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
