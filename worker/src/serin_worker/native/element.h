// Numbers as they lie in memory, read and written sixteen at a time as floats.
#pragma once
#include "vector.h"

template <int32_t D> struct Element;

template <> struct Element<F32> {
  typedef float type;
  static f16x read(const type* p) { return load(p); }
  static void write(type* p, f16x v) { store(p, v); }
  static f16x rounded(f16x v) { return v; }
};

template <> struct Element<BF16> {
  typedef uint16_t type;
  static f16x read(const type* p) {
    typedef uint16_t half __attribute__((vector_size(32)));
    half h;
    std::memcpy(&h, p, 32);
    return as_float(__builtin_convertvector(h, u16x) << 16);
  }
  static void write(type* p, f16x v) {
    typedef uint16_t half __attribute__((vector_size(32)));
    const half h = __builtin_convertvector(bits_of(v) >> 16, half);
    std::memcpy(p, &h, 32);
  }
  static f16x rounded(f16x v) { return as_float(bits_of(v) & 0xffff0000u); }
  static u16x bits_of(f16x v) {  // rounded to nearest even; NaN stays NaN
    const u16x u = as_bits(v), r = u + 0x7fffu + ((u >> 16) & 1u);
    return (u & 0x7fffffffu) > 0x7f800000u ? (u | 0x400000u) : r;
  }
};

template <> struct Element<F16> {
  typedef _Float16 type;
  static f16x read(const type* p) {
    h16x h;
    std::memcpy(&h, p, 32);
    return __builtin_convertvector(h, f16x);
  }
  static void write(type* p, f16x v) {
    const h16x h = __builtin_convertvector(v, h16x);
    std::memcpy(p, &h, 32);
  }
  static f16x rounded(f16x v) { return __builtin_convertvector(__builtin_convertvector(v, h16x), f16x); }
};
