// eta: the greatest (or least) S of a row with a leading part of an order of rows.
//
// Shapes: order [m], rows, limit, smallest, eta [n]. Only the rows asked for are computed, each
// against order[0 : limit]. Columns are gathered into the order once, a window of them at a time; rows
// that look at all m need no order and take the columns as they lie. A worker multiplies a group of
// rows with a slice of columns (one sgemm). A pair is looked up in float64 only where its float32 value
// is within reach of the greatest of its row in this slice, and of the best that is known: one or two.
// Bytes: a window, and a group of rows and a tile a worker. Flops: 2 d sum(limit).
#include <cmath>
#include <limits>
#include <mutex>

#include "blas.h"
#include "parallel.h"
#include "pinned.h"

namespace proto_engine {
namespace {
constexpr int64_t kRowGroup = 256;
constexpr int64_t kSlice = 512;
constexpr int64_t kWindowBytes = 64 << 20;
constexpr int64_t kStep = 16;  // columns that are passed over together
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Consecutive columns [first, first + count) of the order: their unit rows, and where they are among the rows of x.
struct Columns {
  const float* unit;
  const int64_t* index;  // null: column k is row k
  int64_t first, count;
  int64_t row(int64_t k) const { return index ? index[first + k] : first + k; }
};

struct ExtremeSearch {
  struct Worker {
    std::vector<int64_t> asked;
    std::vector<float> group, s;
    double best[kRowGroup];
  };
  const Rows& x;
  const double* squares;
  const float* unit;
  const int64_t* rows;
  const int64_t* limit;
  const uint8_t* smallest;
  double bound;
  const Execution& run;
  std::vector<Worker> workers;
  std::vector<double> best;  // [n] max of sign * S, so that both directions are one comparison
  std::mutex mutex;

  double sign(int64_t t) const { return smallest[t] ? -1.0 : 1.0; }

  // Shows the columns to the rows `asked` [n] that look so far.
  void look(const std::vector<int64_t>& asked, const Columns& columns) {
    const int64_t n = static_cast<int64_t>(asked.size()), slices = (columns.count + kSlice - 1) / kSlice;
    parallel_for((n + kRowGroup - 1) / kRowGroup * slices, run, [&](int worker, int64_t item) {
      const int64_t begin = item / slices * kRowGroup, k0 = item % slices * kSlice;
      look_at_slice(workers[worker], asked.data() + begin, std::min(kRowGroup, n - begin), columns, k0);
    });
  }

  void look_at_slice(Worker& own, const int64_t* asked, int64_t n, const Columns& columns, int64_t k0) {
    const int64_t d = x.dim, from = columns.first + k0;
    int64_t width = 0;
    own.asked.clear();
    own.group.resize(std::max<size_t>(own.group.size(), n * d));
    for (int64_t t = 0; t < n; ++t) {
      if (limit[asked[t]] <= from) continue;
      const float* row = unit + rows[asked[t]] * d;
      std::copy(row, row + d, own.group.data() + static_cast<int64_t>(own.asked.size()) * d);
      own.asked.push_back(asked[t]);
      width = std::max(width, std::min({limit[asked[t]] - from, columns.count - k0, kSlice}));
    }
    const int64_t size = static_cast<int64_t>(own.asked.size());
    if (size == 0) return;
    own.s.resize(std::max<size_t>(own.s.size(), size * width));
    multiply_transposed(own.group.data(), size, d, columns.unit + k0 * d, width, d, d, own.s.data(), width);
    look_up(own, width, columns, k0);
  }

  // The best of each row among the columns of a product, own.s [size, width].
  void look_up(Worker& own, int64_t width, const Columns& columns, int64_t k0) {
    const int64_t size = static_cast<int64_t>(own.asked.size());
    {
      const std::lock_guard<std::mutex> lock(mutex);
      for (int64_t r = 0; r < size; ++r) own.best[r] = best[own.asked[r]];
    }
    const auto sink = [&](int64_t r, double value) {
      own.best[r] = std::max(own.best[r], sign(own.asked[r]) * value);
    };
    PinnedQueue<int64_t, decltype(sink)> queue(x, squares, sink);
    for (int64_t r = 0; r < size; ++r) {
      const int64_t t = own.asked[r], end = std::min(width, limit[t] - columns.first - k0);
      float* s = own.s.data() + r * width;
      if (smallest[t])
        for (int64_t c = 0; c < end; ++c) s[c] = -s[c];
      // The greatest S is at least the greatest s32 less the bound: what lies below both bounds is out.
      const double least = std::max(own.best[r], static_cast<double>(vector_loops().top2(s, end).first) - bound);
      const float reach = std::nextafter(static_cast<float>(least - bound), -static_cast<float>(kInfinity));
      for (int64_t c0 = 0; c0 < end; c0 += kStep) {
        const int64_t c1 = std::min(end, c0 + kStep);
        bool any = false;
        for (int64_t c = c0; c < c1; ++c) any |= s[c] >= reach;
        if (!any) continue;
        for (int64_t c = c0; c < c1; ++c)
          if (s[c] >= reach) queue.push(rows[t], columns.row(k0 + c), r);
      }
    }
    queue.flush();
    const std::lock_guard<std::mutex> lock(mutex);
    for (int64_t r = 0; r < size; ++r) best[own.asked[r]] = std::max(best[own.asked[r]], own.best[r]);
  }
};

}  // namespace

void extreme_similarity(const Rows& x, const double* squares, const float* unit, const int64_t* order,
                        const int64_t* rows, const int64_t* limit, const uint8_t* smallest, int64_t n, double bound,
                        double* eta, const Execution& run) {
  const int64_t d = x.dim;
  ExtremeSearch search{x, squares, unit, rows, limit, smallest, bound, run, {}, {}, {}};
  search.workers.resize(std::max(1, run.num_threads));
  search.best.assign(n, -kInfinity);
  std::vector<int64_t> at_all, at_some;
  int64_t longest = 0;
  for (int64_t t = 0; t < n; ++t) {
    (limit[t] == x.count ? at_all : at_some).push_back(t);
    if (limit[t] < x.count) longest = std::max(longest, limit[t]);
  }
  search.look(at_all, {unit, nullptr, 0, x.count});

  const int64_t window = std::min(longest, std::max(kSlice, kWindowBytes / 4 / d / kSlice * kSlice));
  std::vector<float> gathered(window * d);
  for (int64_t first = 0; first < longest; first += window) {
    const int64_t count = std::min(window, longest - first);
    parallel_for((count + kSlice - 1) / kSlice, run, [&](int, int64_t item) {
      for (int64_t k = item * kSlice; k < std::min(count, (item + 1) * kSlice); ++k)
        std::copy(unit + order[first + k] * d, unit + (order[first + k] + 1) * d, gathered.data() + k * d);
    });
    search.look(at_some, {gathered.data(), order, first, count});
  }
  for (int64_t t = 0; t < n; ++t) eta[t] = search.sign(t) * search.best[t];
}

}  // namespace proto_engine
