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
constexpr int64_t kCorner = 32;  // rows and columns that are turned over together: 4 kB, and 4 kB where they go

// out[j, i] = out[i, j] for i of [i0, i1), j of [j0, j1), i < j.
void mirror(float* out, int64_t m, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  for (int64_t i = i0; i < i1; i += kCorner)
    for (int64_t j = j0; j < j1; j += kCorner)
      for (int64_t c = j; c < std::min(j1, j + kCorner); ++c)
        for (int64_t r = i; r < std::min({i1, i + kCorner, c}); ++r) out[c * m + r] = out[r * m + c];
}
}  // namespace

// Products go to where they belong; bytes: 4 m^2, the only place where S exists as a whole.
void similarity(const float* unit, int64_t m, int64_t d, int64_t tile, float* out, const Execution& run) {
  const TriangleOrder order{(m + tile - 1) / tile};
  parallel_for(order.size(), run, [&](int, int64_t item) {
    int64_t a, b;
    order.at(item, &a, &b);
    const int64_t i0 = a * tile, i1 = std::min(m, i0 + tile), j0 = b * tile, j1 = std::min(m, j0 + tile);
    multiply_tile(unit, d, i0, i1, j0, j1, out + i0 * m + j0, m);
    mirror(out, m, i0, i1, j0, j1);
    if (a == b)
      for (int64_t i = i0; i < i1; ++i) out[i * m + i] = 1.0f;
  });
}

}  // namespace proto_engine
