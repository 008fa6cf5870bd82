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

// a * b + c, rounded once where the processor can
inline f16x fma(f16x a, f16x b, f16x c) {
#if defined(__AVX512F__)
  return (f16x)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  f16x r;
  for (int i = 0; i < 16; i += 8) {
    __m256 x, y, z;
    std::memcpy(&x, (const float*)&a + i, 32);
    std::memcpy(&y, (const float*)&b + i, 32);
    std::memcpy(&z, (const float*)&c + i, 32);
    z = _mm256_fmadd_ps(x, y, z);
    std::memcpy((float*)&r + i, &z, 32);
  }
  return r;
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

inline float reduce_max(f16x v) {
  float m = v[0];
  for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
  return m;
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

inline float exponential(float x) { return exponential(broadcast(x))[0]; }

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
