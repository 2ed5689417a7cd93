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
constexpr int64_t kCorner = 32;  // rows and columns that are turned over together

// out[c, r] = s[r, c], out with a stride of m: what is strided is read, from a tile that is in cache.
void write_transposed(const float* s, int64_t rows, int64_t columns, float* out, int64_t m) {
  for (int64_t r0 = 0; r0 < rows; r0 += kCorner)
    for (int64_t c0 = 0; c0 < columns; c0 += kCorner)
      for (int64_t c = c0; c < std::min(columns, c0 + kCorner); ++c)
        for (int64_t r = r0; r < std::min(rows, r0 + kCorner); ++r) out[c * m + r] = s[r * columns + c];
}
}  // namespace

// Both triangles of a tile at a time; bytes: 4 m^2, the only place where S exists as a whole.
void similarity(const float* unit, int64_t m, int64_t d, int64_t tile, float* out, const Execution& run) {
  const TriangleOrder order{(m + tile - 1) / tile};
  std::vector<std::vector<float>> buffers(std::max(1, run.num_threads));
  parallel_for(order.size(), run, [&](int worker, int64_t item) {
    std::vector<float>& s = buffers[worker];
    s.resize(std::min(tile, m) * std::min(tile, m));
    int64_t a, b;
    order.at(item, &a, &b);
    const int64_t i0 = a * tile, j0 = b * tile;
    const int64_t rows = std::min(tile, m - i0), columns = std::min(tile, m - j0);
    multiply_tile(unit, d, i0, i0 + rows, j0, j0 + columns, s.data(), columns);
    write_transposed(s.data(), rows, columns, out + j0 * m + i0, m);
    for (int64_t r = 0; r < rows; ++r) {  // after it: of a tile on the diagonal, only this half was right
      const int64_t skip = a == b ? r + 1 : 0;
      std::copy(s.data() + r * columns + skip, s.data() + (r + 1) * columns, out + (i0 + r) * m + j0 + skip);
      if (a == b) out[(i0 + r) * m + i0 + r] = 1.0f;
    }
  });
}

}  // namespace proto_engine
