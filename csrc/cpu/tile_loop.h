// The one tile loop of the CPU engine.
//
// S = X X^T is symmetric, so only tiles on and above the diagonal are visited, and no tile outlives
// its visit: a worker multiplies two groups of rows into a tile of its own (single-threaded sgemm, or
// ssyrk on the diagonal), hands the tile to an epilogue, and goes on. What the pass computes is the
// epilogue's affair:
//
//   struct Epilogue {
//     void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n);   // s[c] = s32(i, j0 + c)
//   };
//
// Every pair i < j is shown exactly once, as part of row i; the epilogue adds it to row i and to
// column j. Bytes: tile^2 floats a worker. Flops: m^2 d, half of the full product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blas.h"
#include "parallel.h"

namespace proto_engine {

// The tiles (a, b), a <= b, of a square of `side` tiles: those above the diagonal row by row, then the
// diagonal, whose tiles take about half as long: the threads end closer together.
struct TriangleOrder {
  int64_t side;
  int64_t size() const { return side * (side + 1) / 2; }
  void at(int64_t item, int64_t* a, int64_t* b) const {
    int64_t row = 0, length = side - 1;
    while (length > 0 && item >= length) item -= length--, ++row;
    *a = length > 0 ? row : item, *b = length > 0 ? row + 1 + item : item;
  }
};

// s[r, c] = s32(i0 + r, j0 + c); on the diagonal only for r <= c.
inline void multiply_tile(const float* unit, int64_t d, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* s,
                          int64_t stride) {
  if (i0 == j0)
    multiply_own_transposed(unit + i0 * d, i1 - i0, d, d, s, stride);
  else
    multiply_transposed(unit + i0 * d, i1 - i0, d, unit + j0 * d, j1 - j0, d, d, s, stride);
}

template <class Epilogue>
void for_each_tile(const float* unit, int64_t m, int64_t d, int64_t tile, const Execution& run, Epilogue* epilogue) {
  const TriangleOrder order{(m + tile - 1) / tile};
  std::vector<std::vector<float>> buffers(std::max(1, run.num_threads));
  parallel_for(order.size(), run, [&](int worker, int64_t item) {
    std::vector<float>& s = buffers[worker];
    if (s.empty()) s.resize(std::min(tile, m) * std::min(tile, m));
    int64_t a, b;
    order.at(item, &a, &b);
    const int64_t i0 = a * tile, j0 = b * tile;
    const int64_t rows = std::min(tile, m - i0), columns = std::min(tile, m - j0);
    multiply_tile(unit, d, i0, i0 + rows, j0, j0 + columns, s.data(), columns);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t skip = a == b ? r + 1 : 0;  // on the diagonal: strictly above it
      epilogue->row(worker, i0 + r, j0 + skip, s.data() + r * columns + skip, columns - skip);
    }
  });
}

}  // namespace proto_engine
