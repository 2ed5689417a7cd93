// normalize: the pinned sum of squares of each row, and float32 unit rows for the matrix products.
//
// Shapes: x [m, d] stored, squares [m] float64, unit [m, d] float32. Memory bound: one read, one write.
#include <cmath>

#include "parallel.h"
#include "pinned.h"

namespace proto_engine {
namespace {
constexpr int64_t kRowsPerItem = 256;
}

void squared_norms(const Rows& x, double* squares, const Execution& run) {
  parallel_for((x.count + kRowsPerItem - 1) / kRowsPerItem, run, [&](int, int64_t item) {
    const int64_t end = std::min(x.count, (item + 1) * kRowsPerItem);
    for (int64_t i = item * kRowsPerItem; i < end; i += 4) {
      const void* rows[4];
      for (int t = 0; t < 4; ++t) rows[t] = row_of(x, std::min(i + t, end - 1));
      double q[4];
      vector_loops().square4(x.dtype, rows, x.dim, q);
      for (int t = 0; t < 4 && i + t < end; ++t) squares[i + t] = q[t];
    }
  });
}

void normalize(const Rows& x, const double* squares, float* unit, const Execution& run) {
  parallel_for((x.count + kRowsPerItem - 1) / kRowsPerItem, run, [&](int, int64_t item) {
    const int64_t end = std::min(x.count, (item + 1) * kRowsPerItem);
    for (int64_t i = item * kRowsPerItem; i < end; ++i)
      vector_loops().scale(x.dtype, row_of(x, i), x.dim, 1.0 / std::sqrt(squares[i]), unit + i * x.dim);
  });
}

}  // namespace proto_engine
