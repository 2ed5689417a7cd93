// score: cosine of every row with the folded prototypes of each class, and the best two classes.
//
// sigma_c(x) = x_hat . f_c, f_c the mean of the unit prototypes of class c: C products a row instead
// of C p. Shapes: x [m, d] stored, folded [C, d] float64, sigma [m, C] float32.
// One pass over x: a worker takes a block of rows, makes unit rows of them in its own cache-sized
// buffer, multiplies (sgemm, [rows, d] x [d, C]) and reduces. Bytes: m d once. Flops: 2 m d C.
#include <algorithm>
#include <cmath>
#include <limits>

#include "blas.h"
#include "parallel.h"
#include "pinned.h"

namespace proto_engine {
namespace {
constexpr int64_t kMostRows = 256, kFewestRows = 64, kBlockBytes = 256 << 10;  // a quarter of a second-level cache

// Rows a worker takes at a time: what it has squared is still near when it is multiplied, and looked up.
int64_t rows_of_block(int64_t d) { return std::clamp(kBlockBytes / 4 / d, kFewestRows, kMostRows); }

bool usable(double square) { return square > 0.0 && std::isfinite(square); }

// float32 rows of moderate length are multiplied as they are stored and the products are scaled by the
// inverse norm; others (half types, float64, very long or very short rows) go through unit rows first.
bool moderate(double square) { return square > 0x1p-60 && square < 0x1p+60; }

// A worker's block: squares of its rows and their float32 scores, NaN for unusable rows.
struct ScoreBlock {
  double squares[kMostRows];
  std::vector<float> unit, s;

  void compute(const Rows& x, int64_t begin, int64_t size, const std::vector<float>& folded, int64_t num_classes) {
    s.resize(size * num_classes);
    for (int64_t r = 0; r < size; r += 4) {
      const void* rows[4];
      double q[4];
      for (int64_t t = 0; t < 4; ++t) rows[t] = row_of(x, begin + std::min(r + t, size - 1));
      vector_loops().square4(x.dtype, rows, x.dim, q);
      std::copy(q, q + std::min<int64_t>(4, size - r), squares + r);
    }
    if (x.dtype == DType::kFloat32 && std::all_of(squares, squares + size, moderate))
      multiply_stored(x, begin, size, folded, num_classes);
    else
      multiply_unit(x, begin, size, folded, num_classes);
  }

 private:
  void multiply_stored(const Rows& x, int64_t begin, int64_t size, const std::vector<float>& folded,
                       int64_t num_classes) {
    const float* rows = static_cast<const float*>(row_of(x, begin));
    multiply(rows, size, x.stride, folded.data(), num_classes, num_classes, x.dim, s.data(), num_classes);
    for (int64_t r = 0; r < size; ++r) {
      const float inverse_norm = static_cast<float>(1.0 / std::sqrt(squares[r]));
      for (int64_t c = 0; c < num_classes; ++c) s[r * num_classes + c] *= inverse_norm;
    }
  }

  void multiply_unit(const Rows& x, int64_t begin, int64_t size, const std::vector<float>& folded,
                     int64_t num_classes) {
    const int64_t d = x.dim;
    unit.resize(size * d);
    for (int64_t r = 0; r < size; ++r) {
      float* out = unit.data() + r * d;
      if (usable(squares[r]))
        vector_loops().scale(x.dtype, row_of(x, begin + r), d, 1.0 / std::sqrt(squares[r]), out);
      else
        std::fill(out, out + d, std::numeric_limits<float>::quiet_NaN());
    }
    multiply(unit.data(), size, d, folded.data(), num_classes, num_classes, d, s.data(), num_classes);
  }
};

// The folded vectors in float32 and transposed, [d, C]: the layout that narrow products run fastest on.
std::vector<float> transposed_float32(const double* folded, int64_t num_classes, int64_t d) {
  std::vector<float> out(num_classes * d);
  for (int64_t c = 0; c < num_classes; ++c)
    for (int64_t k = 0; k < d; ++k) out[k * num_classes + c] = static_cast<float>(folded[c * d + k]);
  return out;
}

}  // namespace

void score(const Rows& x, const double* folded, int64_t num_classes, float* sigma, const Execution& run) {
  const std::vector<float> folded32 = transposed_float32(folded, num_classes, x.dim);
  std::vector<ScoreBlock> blocks(std::max(1, run.num_threads));
  const int64_t block = rows_of_block(x.dim);
  parallel_for((x.count + block - 1) / block, run, [&](int worker, int64_t item) {
    const int64_t begin = item * block, size = std::min(block, x.count - begin);
    ScoreBlock& own = blocks[worker];
    own.compute(x, begin, size, folded32, num_classes);
    std::copy(own.s.begin(), own.s.begin() + size * num_classes, sigma + begin * num_classes);
  });
}

namespace {

// The pinned score of the classes of a row that could be first or second; the best two are kept.
// Equal scores: the lower class index is first, so classes must arrive in ascending order.
struct BestTwo {
  int64_t label = -1;
  double best = -std::numeric_limits<double>::infinity(), second = -std::numeric_limits<double>::infinity();
  void add(int64_t c, double value) {
    if (label < 0 || value > best) {
      if (label >= 0) second = best;
      best = value, label = c;
    } else if (value > second) {
      second = value;
    }
  }
};

}  // namespace

void score_top2(const Rows& x, const double* folded, int64_t num_classes, double bound, int64_t* label, double* best,
                double* second, const Execution& run) {
  const int64_t d = x.dim;
  const std::vector<float> folded32 = transposed_float32(folded, num_classes, d);
  std::vector<ScoreBlock> blocks(std::max(1, run.num_threads));
  const int64_t block = rows_of_block(x.dim);
  parallel_for((x.count + block - 1) / block, run, [&](int worker, int64_t item) {
    const int64_t begin = item * block, size = std::min(block, x.count - begin);
    ScoreBlock& own = blocks[worker];
    own.compute(x, begin, size, folded32, num_classes);
    BestTwo result[kMostRows];
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::vector<int32_t> near(num_classes + 16), unused(num_classes);  // 16: a whole vector is stored
    // Pending pinned sums of two rows with two classes each, where the second may be the first again; classes of
    // a row arrive in ascending order.
    const void* a[2];
    const double* f[4];
    int64_t where[2], of_class[4];
    int pending = 0;
    const auto flush = [&] {
      if (pending == 0) return;
      if (pending == 1) a[1] = a[0], f[2] = f[0], f[3] = f[1];
      double dot[4];
      vector_loops().dot2x2(x.dtype, a, f, d, dot);
      for (int t = 0; t < pending; ++t) {
        const double norm = std::sqrt(own.squares[where[t]]);
        const int64_t* c = of_class + 2 * t;
        result[where[t]].add(c[0], dot[2 * t] / norm);
        if (c[1] != c[0]) result[where[t]].add(c[1], dot[2 * t + 1] / norm);
      }
      pending = 0;
    };
    for (int64_t r = 0; r < size; ++r) {
      if (!usable(own.squares[r])) continue;
      const float* s = own.s.data() + r * num_classes;
      const Top2 top = vector_loops().top2(s, num_classes);
      // Whoever is first or second in float64 lies within two bounds of the float32 second.
      const float reach =
          std::nextafter(static_cast<float>(static_cast<double>(top.second) - 2.0 * bound), -kInfinity);
      int64_t found = 0;
      vector_loops().scan_bracket(s, num_classes, reach, kInfinity, unused.data(), near.data(), &found);
      for (int64_t t = 0; t < found; t += 2) {
        a[pending] = row_of(x, begin + r), where[pending] = r;
        for (int64_t u = 0; u < 2; ++u) {
          const int64_t c = near[std::min(t + u, found - 1)];
          f[2 * pending + u] = folded + c * d, of_class[2 * pending + u] = c;
        }
        if (++pending == 2) flush();
      }
    }
    flush();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (int64_t r = 0; r < size; ++r) {
      const bool good = usable(own.squares[r]);
      label[begin + r] = good ? result[r].label : -1;
      best[begin + r] = good ? result[r].best : nan;
      second[begin + r] = good ? result[r].second : nan;
    }
  });
}

}  // namespace proto_engine
