// cutoff under ties: a histogram of the pinned S over a narrow interval.
//
// Where so many pairs fall next to the cutoff that they cannot be kept (duplicate rows, binary
// features), the order statistic is closed in on instead: each pass counts the pairs of [lo, hi] in
// equal bins and the caller continues with the bin that holds the wanted rank. A bin remembers its
// least and greatest value, so a bin of equal values ends the search.
// Flops: m^2 d for the tiles, and 2 d in float64 for each pair within the interval.
#include <cmath>
#include <limits>

#include "pinned.h"
#include "tile_loop.h"

namespace proto_engine {
namespace {

struct HistogramEpilogue {
  struct Worker {
    int64_t below = 0;
    std::vector<int64_t> count;
    std::vector<double> least, most;
  };
  const Rows& x;
  const double* squares;
  double lo, hi;
  float lo32, hi32;  // outside of these the float32 value decides
  int64_t bins;
  std::vector<Worker> workers;

  int64_t bin_of(double value) const {
    const double position = (value - lo) / (hi - lo) * static_cast<double>(bins);
    return position >= static_cast<double>(bins) ? bins - 1 : position > 0.0 ? static_cast<int64_t>(position) : 0;
  }

  void row(int worker, int64_t i, int64_t j0, const float* s, int64_t n) {
    Worker& own = workers[worker];
    const auto sink = [&](int, double value) {
      if (value < lo) {
        ++own.below;
      } else if (value <= hi) {
        const int64_t b = hi > lo ? bin_of(value) : 0;
        ++own.count[b];
        own.least[b] = std::min(own.least[b], value);
        own.most[b] = std::max(own.most[b], value);
      }
    };
    PinnedQueue<int, decltype(sink)> queue(x, squares, sink);
    for (int64_t c = 0; c < n; ++c) {
      if (s[c] < lo32)
        ++own.below;
      else if (!(s[c] > hi32))
        queue.push(i, j0 + c, 0);
    }
    queue.flush();
  }
};

}  // namespace

int64_t histogram(const Rows& x, const double* squares, const float* unit, double lo, double hi, double bound,
                  int64_t bins, int64_t tile, int64_t* count, double* least, double* most, const Execution& run) {
  const float infinity = std::numeric_limits<float>::infinity();
  HistogramEpilogue epilogue{x,
                             squares,
                             lo,
                             hi,
                             std::nextafter(static_cast<float>(lo - bound), -infinity),
                             std::nextafter(static_cast<float>(hi + bound), infinity),
                             bins,
                             {}};
  epilogue.workers.resize(std::max(1, run.num_threads));
  for (auto& worker : epilogue.workers) {
    worker.count.assign(bins, 0);
    worker.least.assign(bins, std::numeric_limits<double>::infinity());
    worker.most.assign(bins, -std::numeric_limits<double>::infinity());
  }
  for_each_tile(unit, x.count, x.dim, tile, run, &epilogue);
  int64_t below = 0;
  std::fill(count, count + bins, 0);
  std::fill(least, least + bins, std::numeric_limits<double>::infinity());
  std::fill(most, most + bins, -std::numeric_limits<double>::infinity());
  for (const auto& worker : epilogue.workers) {
    below += worker.below;
    for (int64_t b = 0; b < bins; ++b) {
      count[b] += worker.count[b];
      least[b] = std::min(least[b], worker.least[b]);
      most[b] = std::max(most[b], worker.most[b]);
    }
  }
  return below;
}

}  // namespace proto_engine
