// What is called from outside, and what of it the kernels call of each other.
#pragma once
#include <cstdint>
#include <new>

// What a kernel answers, in bits: several answers are one. Nothing that is thrown leaves it: callers are no C++.
enum Outcome : int32_t { DONE = 0, UNKNOWN_TYPE = 1, NO_MEMORY = 2 };

template <class Call> int32_t outcome_of(const Call& call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  }
}

extern "C" {

// One layer's attention: its pages and its arithmetic.
struct Layer {
  void* keys;
  void* values;
  const float* sinks;  // one per query head, or null
  int32_t num_kv_heads, group_size, key_dim, value_dim;
  int32_t dtype, window;  // window 0: none
  float scale, softcap;   // softcap 0: none
};

// Whose rows a step has.
struct Step {
  const int32_t* starts;    // [num_sequences + 1] first row of each sequence in this step
  const int32_t* contexts;  // [num_sequences] tokens of each sequence once this step's are written
  const int32_t* tables;    // [num_sequences, table_stride] blocks
  int32_t num_sequences, table_stride, tiles_per_block, num_threads;
};

// A tensor [token, head, dim] with contiguous dim; strides in elements.
struct Rows {
  const void* data;
  int64_t token_stride, head_stride;
};

int32_t serin_paged_attention(const Layer* layer, const Step* step, const Rows* q, const Rows* k, const Rows* v,
                              void* out);

// A linear layer's result.
struct Output {
  int64_t columns;
  void* data;
};

// `x` [num_rows, width] times weights, into each output [num_rows, its columns]. `rows` has room for 16-fold rows of
// whole steps, `factors` for a float for each row.
int32_t serin_linear(int32_t kind, int32_t dtype, const void* x, int64_t num_rows, int64_t width,
                     const uint8_t* weights, const float* scales, const float* bias, const Output* outputs,
                     int32_t num_outputs, uint8_t* rows, float* factors, int32_t threads);

// Bytes that a row takes in `rows`.
int64_t serin_linear_row_bytes(int32_t kind, int64_t width);

// activation(in), times `factor` unless it is null.
int32_t serin_activate(int32_t kind, int32_t dtype, const void* in, const void* factor, void* out, int64_t size,
                       int32_t threads);

int32_t serin_rms_norm(int32_t kind, int32_t dtype, const void* in, const void* weights, void* out, int64_t rows,
                       int32_t width, float eps, int32_t threads);

int32_t serin_add(int32_t dtype, const void* a, const void* b, void* out, int64_t size, int32_t threads);

// Rows [token, head, width] of one tensor, read by strides (in elements) and written contiguously.
struct Heads {
  const void* in;
  void* out;
  int64_t num_heads, token_stride, head_stride;
};

struct Angles {
  const void *cos, *sin;
  int64_t num_tokens, stride;
};

int32_t serin_rotate(int32_t dtype, const Heads* heads, int32_t num, const Angles* angles, int32_t width,
                     int32_t threads);
}
