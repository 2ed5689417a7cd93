// similarity: S of chosen pairs in the pinned arithmetic, and the explicit matrix in float32.
#include "pinned.h"
#include "tile_loop.h"

namespace proto_engine {

void pair_similarity(const Rows& x, const double* squares, const int64_t* first, const int64_t* second, int64_t n,
                     double* out, const Execution& run) {
  constexpr int64_t kPairsPerItem = 4096;
  parallel_for((n + kPairsPerItem - 1) / kPairsPerItem, run, [&](int, int64_t item) {
    const auto sink = [out](int64_t t, double s) { out[t] = s; };
    PinnedQueue<int64_t, decltype(sink)> queue(x, squares, sink);
    const int64_t end = std::min(n, (item + 1) * kPairsPerItem);
    for (int64_t t = item * kPairsPerItem; t < end; ++t) queue.push(first[t], second[t], t);
    queue.flush();
  });
}

namespace {
// Writes both triangles; bytes: 4 m^2, the only place where S exists as a whole.
struct StoreEpilogue {
  float* out;
  int64_t m;
  void row(int, int64_t i, int64_t j0, const float* s, int64_t n) {
    for (int64_t c = 0; c < n; ++c) out[i * m + j0 + c] = s[c];
    for (int64_t c = 0; c < n; ++c) out[(j0 + c) * m + i] = s[c];
  }
};
}  // namespace

void similarity(const float* unit, int64_t m, int64_t d, int64_t tile, float* out, const Execution& run) {
  StoreEpilogue epilogue{out, m};
  for_each_tile(unit, m, d, tile, run, &epilogue);
  for (int64_t i = 0; i < m; ++i) out[i * m + i] = 1.0f;
}

}  // namespace proto_engine
