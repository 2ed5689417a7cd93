// density: how many similarities of a row lie above and below a value, S never stored.
//
// Shapes: unit [m, d] float32, above and below [m] int64, or [m, C] int32 by the class of the other row. Flops: m^2 d
// (half of the product X X^T). Two epilogues of the tile loop: one counts against a bracket [lo, hi] that is known to
// hold the cutoff and keeps the few pairs inside it, one counts against the cutoff itself. Each counts for rows, or
// for rows and classes (class_counts.h).
#include <atomic>
#include <cmath>
#include <limits>

#include "class_counts.h"
#include "pinned.h"
#include "tile_loop.h"

namespace proto_engine {
namespace {

template <class Counts>
struct BracketEpilogue {
  struct Worker {
    Counts counts;
    std::vector<int32_t> columns;
    std::deque<PairEntry> inside;
  };
  float lo, hi;
  int64_t capacity;
  std::vector<Worker> workers;
  std::atomic<int64_t> num_inside{0};

  void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n) {
    Worker& own = workers[worker];
    const int64_t found = own.counts.scan(lo, hi, i, j0, s, n, own.columns);
    if (found == 0) return;
    // Past the capacity only the number goes on; the caller then takes another way.
    if (num_inside.fetch_add(found, std::memory_order_relaxed) + found > capacity) return;
    for (int64_t t = 0; t < found; ++t) {
      const int32_t c = own.columns[t];
      own.inside.push_back({static_cast<int32_t>(i), static_cast<int32_t>(j0 + c), s[c]});
    }
  }
};

template <class Counts>
struct ThresholdEpilogue {
  struct Worker {
    Counts counts;
    std::vector<int32_t> columns;
  };
  const Rows& x;
  const double* squares;
  double cutoff;
  float lo, hi;
  std::vector<Worker> workers;

  void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n) {
    Worker& own = workers[worker];
    const int64_t found = own.counts.scan(lo, hi, i, j0, s, n, own.columns);
    const auto sink = [&](int64_t j, double value) {
      if (value > cutoff) own.counts.add_above(i, j);
      if (value == cutoff) own.counts.add_equal(i, j);
    };
    PinnedQueue<int64_t, decltype(sink)> queue(x, squares, sink);
    for (int64_t t = 0; t < found; ++t) queue.push(i, j0 + own.columns[t], j0 + own.columns[t]);
    queue.flush();
  }
};

// The pass against a bracket; `counts` is what every worker starts from.
template <class Counts>
std::vector<Counts> scan_bracket(const float* unit, int64_t m, int64_t d, float lo, float hi, int64_t capacity,
                                 int64_t tile, const Counts& counts, int64_t* num_inside, PairLists* inside,
                                 const Execution& run) {
  BracketEpilogue<Counts> epilogue;
  epilogue.lo = lo, epilogue.hi = hi, epilogue.capacity = capacity;
  for (int worker = 0; worker < std::max(1, run.num_threads); ++worker) epilogue.workers.push_back({counts, {}, {}});
  for_each_tile(unit, m, d, tile, run, &epilogue);
  std::vector<Counts> counted;
  inside->clear();
  for (auto& worker : epilogue.workers) {
    worker.counts.finish();
    counted.push_back(std::move(worker.counts));
    inside->push_back(std::move(worker.inside));
  }
  *num_inside = epilogue.num_inside;
  return counted;
}

// The pass against a cutoff.
template <class Counts>
std::vector<Counts> scan_threshold(const Rows& x, const double* squares, const float* unit, double cutoff,
                                   double bound, int64_t tile, const Counts& counts, const Execution& run) {
  const float infinity = std::numeric_limits<float>::infinity();
  // Rounded outwards, so that what lies outside [lo, hi] is decided for certain.
  const float lo = std::nextafter(static_cast<float>(cutoff - bound), -infinity);
  const float hi = std::nextafter(static_cast<float>(cutoff + bound), infinity);
  ThresholdEpilogue<Counts> epilogue{x, squares, cutoff, lo, hi, {}};
  for (int worker = 0; worker < std::max(1, run.num_threads); ++worker) epilogue.workers.push_back({counts, {}});
  for_each_tile(unit, x.count, x.dim, tile, run, &epilogue);
  std::vector<Counts> counted;
  for (auto& worker : epilogue.workers) {
    worker.counts.finish();
    counted.push_back(std::move(worker.counts));
  }
  return counted;
}

void merge(const std::vector<int32_t>& counts, int64_t* total) {
  for (size_t i = 0; i < counts.size(); ++i) total[i] += counts[i];
}

}  // namespace

int64_t count_bracket(const float* unit, int64_t m, int64_t d, float lo, float hi, int64_t capacity, int64_t tile,
                      int64_t* above, PairLists* inside, const Execution& run) {
  const RowCounts none{std::vector<int32_t>(m, 0), {}};
  int64_t num_inside = 0;
  std::fill(above, above + m, 0);
  for (const RowCounts& counts : scan_bracket(unit, m, d, lo, hi, capacity, tile, none, &num_inside, inside, run))
    merge(counts.above, above);
  return num_inside;
}

int64_t count_bracket_by_class(const float* unit, int64_t m, int64_t d, const int64_t* offsets, int64_t num_classes,
                               float lo, float hi, int64_t capacity, int64_t tile, int32_t* above, PairLists* inside,
                               const Execution& run) {
  int64_t num_inside = 0;
  std::fill(above, above + m * num_classes, 0);
  scan_bracket(unit, m, d, lo, hi, capacity, tile, ClassCounts(offsets, num_classes, above), &num_inside, inside,
               run);
  return num_inside;
}

void count_threshold(const Rows& x, const double* squares, const float* unit, double cutoff, double bound,
                     int64_t tile, int64_t* above, int64_t* below, const Execution& run) {
  const RowCounts none{std::vector<int32_t>(x.count, 0), std::vector<int32_t>(x.count, 0)};
  std::fill(above, above + x.count, 0);
  std::vector<int64_t> equal(x.count, 0);
  for (const RowCounts& counts : scan_threshold(x, squares, unit, cutoff, bound, tile, none, run)) {
    merge(counts.above, above);
    merge(counts.equal, equal.data());
  }
  for (int64_t i = 0; i < x.count; ++i) below[i] = x.count - 1 - above[i] - equal[i];
}

void count_threshold_by_class(const Rows& x, const double* squares, const float* unit, const int64_t* offsets,
                              int64_t num_classes, double cutoff, double bound, int64_t tile, int32_t* above,
                              const Execution& run) {
  std::fill(above, above + x.count * num_classes, 0);
  scan_threshold(x, squares, unit, cutoff, bound, tile, ClassCounts(offsets, num_classes, above), run);
}

}  // namespace proto_engine
