// One token for each row of logits: divide by temperature, filter, add Gumbel noise, take the largest; or just the
// largest.
//
// Draws are defined as by the torch functions beside them: noise is a pure function of (seed, choice, position, purpose)
// and the token's id by Philox4x32-10. Noise is first estimated in single precision, and computed exactly (in double)
// only for tokens whose estimate comes near the best so far. Each row is computed by one thread, alone.
#include <algorithm>
#include <cmath>
#include <vector>

#include "element.h"
#include "kernels.h"
#include "pool.h"

struct DrawRow {
  uint64_t seed;
  uint32_t choice, position, purpose;
  int32_t row;    // of the logits
  int32_t top_k;  // 0: all
  float temperature, top_p, log_min_p;  // log_min_p -inf: none
};

namespace {

constexpr float MARGIN = 1e-2f;        // more than an estimate is ever off
constexpr float LARGEST_NOISE = 23.f;  // -log(2^-33), rounded up
constexpr int BUCKETS = 2048;
constexpr float BUCKETS_PER_NAT = 64.f;
constexpr int LANES = 16, BATCH = 4 * LANES;

// Four words for each of 16 consecutive counters.
void philox(uint32_t first, const DrawRow& d, uint32_t words[4][LANES]) {
  uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
  for (int l = 0; l < LANES; l++) c0[l] = first + l, c1[l] = d.position, c2[l] = d.choice, c3[l] = d.purpose;
  uint32_t k0 = static_cast<uint32_t>(d.seed), k1 = static_cast<uint32_t>(d.seed >> 32);
  for (int round = 0; round < 10; round++) {
#pragma omp simd
    for (int l = 0; l < LANES; l++) {
      const uint64_t p0 = static_cast<uint64_t>(c0[l]) * 0xD2511F53u, p1 = static_cast<uint64_t>(c2[l]) * 0xCD9E8D57u;
      c0[l] = static_cast<uint32_t>(p1 >> 32) ^ c1[l] ^ k0;
      c1[l] = static_cast<uint32_t>(p1);
      c2[l] = static_cast<uint32_t>(p0 >> 32) ^ c3[l] ^ k1;
      c3[l] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  std::memcpy(words[0], c0, sizeof c0);
  std::memcpy(words[1], c1, sizeof c1);
  std::memcpy(words[2], c2, sizeof c2);
  std::memcpy(words[3], c3, sizeof c3);
}

// ln(x) within 1e-4 for positive normal x.
inline f16x logarithm(f16x x) {
  const u16x u = as_bits(x);
  const i16x e = (i16x)((u - 0x3f3504f3u) >> 23);  // exponent, with mantissas from sqrt(1/2) to sqrt(2)
  const i16x exponent = (e << 24) >> 24;
  const f16x f = as_float(u - ((u16x)exponent << 23)) - 1.f;
  f16x p = broadcast(-0.1213f);
  p = fma(p, f, broadcast(0.1690f));
  p = fma(p, f, broadcast(-0.2463f));
  p = fma(p, f, broadcast(0.3331f));
  p = fma(p, f, broadcast(-0.50003f));
  return fma(f * f, p, f) + __builtin_convertvector(exponent, f16x) * 0.69314718f;
}

// -log(-log(1 - (bits + 1/2) / 2^32)) to MARGIN.
inline f16x estimate(u16x bits) {
  const f16x v = (__builtin_convertvector(bits, f16x) + 0.5f) * 0x1p-32f;
  const f16x w = (__builtin_convertvector(~bits, f16x) + 0.5f) * 0x1p-32f;
  const f16x exact = -logarithm(w), small = v + v * v * 0.5f;
  return -logarithm(v < 1e-3f ? small : exact);
}

inline float noise(uint32_t bits) {
  return static_cast<float>(-std::log(-std::log1p(-((static_cast<double>(bits) + 0.5) * 0x1p-32))));
}

class Row {
 public:
  Row(const float* x, int size) : x(x), size(size) {
    f16x highest = broadcast(NEG_INF);
    int i = 0;
    for (; i + LANES <= size; i += LANES) {
      const f16x v = load(x + i);
      highest = v > highest ? v : highest;
    }
    top = reduce_max(highest);
    for (; i < size; i++) top = x[i] > top ? x[i] : top;
  }

  // The smallest logit that stays.
  float threshold(const DrawRow& d) {
    const float floor = top + d.log_min_p;
    const bool has_k = d.top_k > 0 && d.top_k < size;
    if (!has_k && !(d.top_p < 1.f)) return floor;
    count.assign(BUCKETS, 0);
    mass.assign(BUCKETS, 0.0);
    for (int i = 0; i < size; i++) {
      if (!(x[i] >= floor) || x[i] == NEG_INF) continue;
      const int b = bucket(x[i]);
      count[b]++;
      mass[b] += probability(x[i]);
    }
    int last = BUCKETS - 1, left_in_last = -1;  // -1: all
    double total = 0.0;
    if (has_k) {
      int64_t seen = 0;
      for (last = 0; last < BUCKETS - 1 && seen + count[last] < d.top_k; last++) seen += count[last], total += mass[last];
      const std::vector<float>& members = sorted(last, floor);
      left_in_last = std::min<int64_t>(d.top_k - seen, members.size());
      for (int i = 0; i < left_in_last; i++) total += probability(members[i]);
    } else {
      for (double m : mass) total += m;
    }
    const double wanted = d.top_p < 1.f ? static_cast<double>(d.top_p) * total : std::numeric_limits<double>::infinity();
    double before = 0.0;
    int b = 0;
    while (b < last && before + mass[b] < wanted) before += mass[b++];
    const std::vector<float>& members = sorted(b, floor);
    const int most = b == last && left_in_last >= 0 ? left_in_last : static_cast<int>(members.size());
    float smallest = top;
    for (int i = 0; i < most && (before < wanted || i == 0); i++) {
      smallest = members[i];
      before += probability(members[i]);
    }
    return std::min(smallest, top);
  }

  int take(const DrawRow& d, float smallest) const {
    float best = NEG_INF;
    int chosen = 0;
    uint32_t words[4][LANES];
    float estimates[BATCH];
    for (int first = 0; first < size; first += BATCH) {
      const int n = std::min(BATCH, size - first);
      float highest = NEG_INF;
      for (int i = 0; i < n; i++) highest = x[first + i] > highest ? x[first + i] : highest;
      if (highest < smallest || highest + LARGEST_NOISE < best) continue;
      philox(first / 4, d, words);
      for (int j = 0; j < 4; j++) {
        u16x bits;
        std::memcpy(&bits, words[j], 64);
        const f16x g = estimate(bits);
        for (int l = 0; l < LANES; l++) estimates[4 * l + j] = g[l];
      }
      for (int i = 0; i < n; i++) {
        const float logit = x[first + i];
        if (!(logit >= smallest) || logit + estimates[i] < best - MARGIN) continue;
        const float score = logit + noise(words[i % 4][i / 4]);
        if (score > best) best = score, chosen = first + i;
      }
    }
    return chosen;
  }

 private:
  int bucket(float value) const {
    const float b = (top - value) * BUCKETS_PER_NAT;
    return b < BUCKETS - 1 ? static_cast<int>(b) : BUCKETS - 1;
  }

  double probability(float value) const { return std::exp(static_cast<double>(value) - top); }

  const std::vector<float>& sorted(int b, float floor) {
    members.clear();
    for (int i = 0; i < size; i++)
      if (x[i] >= floor && x[i] != NEG_INF && bucket(x[i]) == b) members.push_back(x[i]);
    std::sort(members.begin(), members.end(), std::greater<float>());
    return members;
  }

  const float* x;
  int size;
  float top;
  std::vector<int64_t> count;
  std::vector<double> mass;
  std::vector<float> members;
};

// The largest number of a row and the first place where it is; NaN if any is NaN.
template <int32_t D> void largest(const typename Element<D>::type* x, int32_t size, float* value, int32_t* place) {
  typedef Element<D> E;
  const int32_t whole = size / LANES * LANES;
  typename E::type edge[LANES];
  for (int i = 0; i < LANES; i++) edge[i] = x[i < size - whole ? whole + i : size - 1];
  const auto at = [&](int32_t i) { return E::read(i < whole ? x + i : edge); };
  f16x most = broadcast(NEG_INF);
  i16x is_nan = {};
  for (int32_t i = 0; i < size; i += LANES) {
    const f16x v = at(i);
    most = v > most ? v : most;
    is_nan |= v != v;
  }
  *value = reduce_max(most);
  *place = 0;
  for (int l = 0; l < LANES; l++)
    if (is_nan[l]) *value = std::numeric_limits<float>::quiet_NaN();
  if (std::isnan(*value)) return;
  for (int32_t i = 0; i < size; i += LANES) {
    const i16x found = at(i) == *value;
    for (int l = 0; l < LANES; l++)
      if (found[l]) {
        *place = std::min(i + l, size - 1);
        return;
      }
  }
}

}  // namespace

extern "C" int32_t serin_draw(const void* logits, int32_t dtype, int64_t row_stride, int32_t size, const DrawRow* rows,
                              int32_t num_rows, int32_t* tokens, int32_t num_threads) {
  if (dtype != F32 && dtype != BF16) return UNKNOWN_TYPE;
  const bool is_small = static_cast<int64_t>(num_rows) * size < 20000;
  const auto draw = [&](Jobs& jobs) {
    std::vector<float> x(size);
    for (int64_t r; jobs.take(r);) {
      const DrawRow& d = rows[r];
      const int64_t at = d.row * row_stride;
      if (dtype == F32)
        for (int i = 0; i < size; i++) x[i] = static_cast<const float*>(logits)[at + i] / d.temperature;
      else
        for (int i = 0; i < size; i++) x[i] = from_bf16(static_cast<const uint16_t*>(logits)[at + i]) / d.temperature;
      Row row(x.data(), size);
      tokens[r] = row.take(d, row.threshold(d));
    }
  };
  return outcome_of([&] { return share(num_rows, is_small ? 1 : num_threads, draw), DONE; });
}

// `values` and `places` of each row's largest number.
extern "C" int32_t serin_largest(const void* logits, int32_t dtype, int64_t row_stride, int32_t size, int32_t num_rows,
                                 float* values, int32_t* places, int32_t num_threads) {
  if (dtype != F32 && dtype != BF16) return UNKNOWN_TYPE;
  const bool is_small = static_cast<int64_t>(num_rows) * size < 100000;
  const auto look = [&](Jobs& jobs) {
    for (int64_t r; jobs.take(r);) {
      const int64_t at = r * row_stride;
      if (dtype == F32) largest<F32>(static_cast<const float*>(logits) + at, size, values + r, places + r);
      else largest<BF16>(static_cast<const uint16_t*>(logits) + at, size, values + r, places + r);
    }
  };
  return outcome_of([&] { return share(num_rows, is_small ? 1 : num_threads, look), DONE; });
}
