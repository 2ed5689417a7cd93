// eta: the greatest (or least) S of a row with a leading part of an order of rows.
//
// Shapes: order [m], rows, limit, smallest, eta [n]. Only the rows asked for are computed, each
// against order[0 : limit]. A group of rows meets the order in gathered slices, one sgemm each; a
// pair is looked up in float64 only when its float32 value could still beat the best so far, which
// happens about log(m) times a row. Flops: 2 d sum(limit).
#include <cmath>
#include <limits>

#include "blas.h"
#include "parallel.h"
#include "pinned.h"

namespace proto_engine {
namespace {
constexpr int64_t kRowGroup = 64;
constexpr int64_t kSlice = 512;

void gather(const float* unit, int64_t d, const int64_t* index, int64_t n, float* out) {
  for (int64_t t = 0; t < n; ++t) std::copy(unit + index[t] * d, unit + (index[t] + 1) * d, out + t * d);
}
}  // namespace

void extreme_similarity(const Rows& x, const double* squares, const float* unit, const int64_t* order,
                        const int64_t* rows, const int64_t* limit, const uint8_t* smallest, int64_t n, double bound,
                        double* eta, const Execution& run) {
  const int64_t d = x.dim;
  struct Worker {
    std::vector<float> group, slice, s;
  };
  std::vector<Worker> workers(std::max(1, run.num_threads));
  parallel_for((n + kRowGroup - 1) / kRowGroup, run, [&](int worker, int64_t item) {
    Worker& own = workers[worker];
    const int64_t begin = item * kRowGroup, size = std::min(kRowGroup, n - begin);
    own.group.resize(kRowGroup * d), own.slice.resize(kSlice * d), own.s.resize(kRowGroup * kSlice);
    gather(unit, d, rows + begin, size, own.group.data());
    // best[r] = max of sign * S, so that both directions are one comparison.
    double best[kRowGroup], sign[kRowGroup];
    int64_t longest = 0;
    for (int64_t r = 0; r < size; ++r) {
      best[r] = -std::numeric_limits<double>::infinity();
      sign[r] = smallest[begin + r] ? -1.0 : 1.0;
      longest = std::max(longest, limit[begin + r]);
    }
    const auto sink = [&](int64_t r, double value) { best[r] = std::max(best[r], sign[r] * value); };
    PinnedQueue<int64_t, decltype(sink)> queue(x, squares, sink);
    for (int64_t k0 = 0; k0 < longest; k0 += kSlice) {
      const int64_t width = std::min(kSlice, longest - k0);
      gather(unit, d, order + k0, width, own.slice.data());
      multiply_transposed(own.group.data(), size, d, own.slice.data(), width, d, d, own.s.data(), width);
      for (int64_t r = 0; r < size; ++r) {
        const int64_t end = std::min(width, limit[begin + r] - k0);
        const float* s = own.s.data() + r * width;
        for (int64_t c = 0; c < end; ++c) {
          if (sign[r] * static_cast<double>(s[c]) + bound < best[r]) continue;
          queue.push(rows[begin + r], order[k0 + c], r);
        }
        queue.flush();  // the next slice starts from a best that is up to date
      }
    }
    for (int64_t r = 0; r < size; ++r) eta[begin + r] = sign[r] * best[r];
  });
}

}  // namespace proto_engine
