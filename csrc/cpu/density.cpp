// density: how many similarities of a row lie above and below a value, S never stored.
//
// Shapes: unit [m, d] float32, above and below [m] int64. Flops: m^2 d (half of the product X X^T).
// Two epilogues of the tile loop: one counts against a bracket [lo, hi] that is known to hold the
// cutoff and keeps the few pairs inside it, one counts against the cutoff itself.
#include <atomic>
#include <cmath>
#include <limits>

#include "pinned.h"
#include "tile_loop.h"

namespace proto_engine {
namespace {

// A worker's own counts; sums of integers, so the order in which they are merged does not matter.
// 32 bits hold a count of at most m < 2^31.
struct RowCounts {
  std::vector<int32_t> of;
  void merge_into(int64_t* total) const {
    for (size_t i = 0; i < of.size(); ++i) total[i] += of[i];
  }
};

// Counts one row of a tile for row i and its columns; the columns inside [lo, hi] end up in own.columns.
template <class Worker>
int64_t scan(Worker& own, float lo, float hi, int64_t i, int64_t j0, const float* s, int64_t n) {
  constexpr int64_t kVectorSlack = 16;  // a whole vector is stored where only its first elements count
  if (static_cast<int64_t>(own.columns.size()) < n + kVectorSlack) own.columns.resize(n + kVectorSlack);
  int64_t found = 0;
  own.above.of[i] += static_cast<int32_t>(
      vector_loops().scan_bracket(s, n, lo, hi, own.above.of.data() + j0, own.columns.data(), &found));
  return found;
}

struct BracketEpilogue {
  struct Worker {
    RowCounts above;
    std::vector<int32_t> columns;
    std::deque<PairEntry> inside;
  };
  float lo, hi;
  int64_t capacity;
  std::vector<Worker> workers;
  std::atomic<int64_t> num_inside{0};

  void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n) {
    Worker& own = workers[worker];
    const int64_t found = scan(own, lo, hi, i, j0, s, n);
    if (found == 0) return;
    // Past the capacity only the number goes on; the caller then takes another way.
    if (num_inside.fetch_add(found, std::memory_order_relaxed) + found > capacity) return;
    for (int64_t t = 0; t < found; ++t) {
      const int32_t c = own.columns[t];
      own.inside.push_back({static_cast<int32_t>(i), static_cast<int32_t>(j0 + c), s[c]});
    }
  }
};

struct ThresholdEpilogue {
  struct Worker {
    RowCounts above, equal;
    std::vector<int32_t> columns;
  };
  const Rows& x;
  const double* squares;
  double cutoff;
  float lo, hi;
  std::vector<Worker> workers;

  void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n) {
    Worker& own = workers[worker];
    const int64_t found = scan(own, lo, hi, i, j0, s, n);
    const auto sink = [&](int64_t j, double value) {
      if (value > cutoff) ++own.above.of[i], ++own.above.of[j];
      if (value == cutoff) ++own.equal.of[i], ++own.equal.of[j];
    };
    PinnedQueue<int64_t, decltype(sink)> queue(x, squares, sink);
    for (int64_t t = 0; t < found; ++t) queue.push(i, j0 + own.columns[t], j0 + own.columns[t]);
    queue.flush();
  }
};

}  // namespace

int64_t count_bracket(const float* unit, int64_t m, int64_t d, float lo, float hi, int64_t capacity, int64_t tile,
                      int64_t* above, PairLists* inside, const Execution& run) {
  BracketEpilogue epilogue;
  epilogue.lo = lo, epilogue.hi = hi, epilogue.capacity = capacity;
  epilogue.workers.resize(std::max(1, run.num_threads));
  for (auto& worker : epilogue.workers) worker.above.of.assign(m, 0);
  for_each_tile(unit, m, d, tile, run, &epilogue);
  std::fill(above, above + m, 0);
  inside->clear();
  for (auto& worker : epilogue.workers) {
    worker.above.merge_into(above);
    inside->push_back(std::move(worker.inside));
  }
  return epilogue.num_inside;
}

void count_threshold(const Rows& x, const double* squares, const float* unit, double cutoff, double bound,
                     int64_t tile, int64_t* above, int64_t* below, const Execution& run) {
  const float infinity = std::numeric_limits<float>::infinity();
  // Rounded outwards, so that what lies outside [lo, hi] is decided for certain.
  const float lo = std::nextafter(static_cast<float>(cutoff - bound), -infinity);
  const float hi = std::nextafter(static_cast<float>(cutoff + bound), infinity);
  ThresholdEpilogue epilogue{x, squares, cutoff, lo, hi, {}};
  epilogue.workers.resize(std::max(1, run.num_threads));
  for (auto& worker : epilogue.workers) worker.above.of.assign(x.count, 0), worker.equal.of.assign(x.count, 0);
  for_each_tile(unit, x.count, x.dim, tile, run, &epilogue);
  std::fill(above, above + x.count, 0);
  std::vector<int64_t> equal(x.count, 0);
  for (const auto& worker : epilogue.workers) {
    worker.above.merge_into(above);
    worker.equal.merge_into(equal.data());
  }
  for (int64_t i = 0; i < x.count; ++i) below[i] = x.count - 1 - above[i] - equal[i];
}

}  // namespace proto_engine
