// A whole decoder layer of the usual kind in one call:
//   h = x + o(attention(rotate(norm(q(norm x))), rotate(norm(k(norm x))), v(norm x)))
//   h + down(act(gate(norm h)) * up(norm h))
// It calls the kernels that stand for the layer's parts, in the order in which the parts would, so its bits are theirs.
#include <vector>

#include "element.h"
#include "kernels.h"

struct Norm {
  const void* weights;  // null: there is none
  int32_t kind;
  float eps;
};

struct Linear {
  const uint8_t* weights;
  const float *scales, *bias;
  int64_t width, columns[3];
  int32_t kind, num_outputs;
};

struct DecoderLayer {
  Layer attention;
  Norm before_attention, query, key, before_feed_forward;
  Linear projections, output, gate_and_up, down;
  int32_t activation;
};

namespace {

// Memory that stays from call to call, given out piece by piece.
class Scratch {
 public:
  void begin(int64_t bytes) {
    if (static_cast<int64_t>(memory.size()) < bytes) memory.resize(bytes);
    used = 0;
  }
  uint8_t* take(int64_t bytes) {
    uint8_t* piece = memory.data() + used;
    used += padded(bytes);
    return piece;
  }
  static int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  std::vector<uint8_t> memory;
  int64_t used = 0;
};

struct Run {
  int64_t num_rows;
  int32_t dtype, threads;
  uint8_t* rows;
  float* factors;

  int32_t linear(const Linear& l, const void* in, void* const* out) const {
    Output outputs[3];
    for (int32_t i = 0; i < l.num_outputs; i++) outputs[i] = {l.columns[i], out[i]};
    return serin_linear(l.kind, dtype, in, num_rows, l.width, l.weights, l.scales, l.bias, outputs, l.num_outputs, rows,
                        factors, threads);
  }

  int32_t norm(const Norm& n, const void* in, void* out, int64_t rows_each, int64_t width) const {
    return serin_rms_norm(n.kind, dtype, in, n.weights, out, num_rows * rows_each, static_cast<int32_t>(width), n.eps,
                          threads);
  }
};

int64_t row_bytes(const Linear& l) { return serin_linear_row_bytes(l.kind, l.width); }

int32_t compute(const DecoderLayer* layer, const Step* step, const Angles* angles, const void* hidden, void* out,
                int64_t num_rows) {
  thread_local Scratch scratch;
  const Layer& attention = layer->attention;
  const int32_t dtype = attention.dtype, threads = step->num_threads;
  const int64_t item = dtype == F32 ? 4 : 2, dim = attention.key_dim, kv_heads = attention.num_kv_heads;
  const int64_t heads = kv_heads * attention.group_size, width = layer->projections.width;
  const int64_t query = heads * dim, key = kv_heads * dim, value = kv_heads * attention.value_dim;
  const int64_t context = heads * attention.value_dim, inner = layer->gate_and_up.columns[0];
  const int64_t pieces[] = {width, 2 * query, 2 * key, value, context, width, 2 * inner};
  int64_t bytes = 64 * 16, widest = 0;
  for (const int64_t piece : pieces) bytes += num_rows * piece * item;
  for (const Linear* l : {&layer->projections, &layer->output, &layer->gate_and_up, &layer->down})
    widest = row_bytes(*l) > widest ? row_bytes(*l) : widest;
  const int64_t tiled_rows = (num_rows + 15) / 16 * 16;
  scratch.begin(bytes + tiled_rows * widest + num_rows * 4);
  const auto take = [&](int64_t columns) { return scratch.take(num_rows * columns * item); };
  const Run run = {num_rows, dtype, threads, scratch.take(tiled_rows * widest),
                   reinterpret_cast<float*>(scratch.take(num_rows * 4))};

  uint8_t *normed = take(width), *q = take(query), *k = take(key), *v = take(value);
  uint8_t *turned_q = take(query), *turned_k = take(key), *seen = take(context), *part = take(width);
  int32_t failed = run.norm(layer->before_attention, hidden, normed, 1, width);
  void* const projected[] = {q, k, v};
  failed |= run.linear(layer->projections, normed, projected);
  // Each number of a row is read before it is written, so norms may stay in place.
  if (layer->query.weights) failed |= run.norm(layer->query, q, q, heads, dim);
  if (layer->key.weights) failed |= run.norm(layer->key, k, k, kv_heads, dim);
  const Heads turns[] = {{q, turned_q, heads, query, dim}, {k, turned_k, kv_heads, key, dim}};
  failed |= serin_rotate(dtype, turns, 2, angles, static_cast<int32_t>(dim), threads);

  const Rows rows_q = {turned_q, query, dim}, rows_k = {turned_k, key, dim}, rows_v = {v, value, attention.value_dim};
  const int64_t whole = step->starts[step->num_sequences];
  std::memset(seen + whole * context * item, 0, (num_rows - whole) * context * item);
  failed |= serin_paged_attention(&attention, step, &rows_q, &rows_k, &rows_v, seen);
  void* const attended[] = {part};
  failed |= run.linear(layer->output, seen, attended);
  failed |= serin_add(dtype, hidden, part, out, num_rows * width, threads);

  uint8_t *gate = take(inner), *up = take(inner);
  failed |= run.norm(layer->before_feed_forward, out, normed, 1, width);
  void* const opened[] = {gate, up};
  failed |= run.linear(layer->gate_and_up, normed, opened);
  failed |= serin_activate(layer->activation, dtype, gate, up, gate, num_rows * inner, threads);
  failed |= run.linear(layer->down, gate, attended);
  failed |= serin_add(dtype, out, part, out, num_rows * width, threads);
  return failed;
}

}  // namespace

// `hidden` and `out` [num_rows, width]; rows from `step`'s last on are padding.
extern "C" int32_t serin_decoder_layer(const DecoderLayer* layer, const Step* step, const Angles* angles,
                                       const void* hidden, void* out, int64_t num_rows) {
  return outcome_of([&] { return compute(layer, step, angles, hidden, out, num_rows); });
}
