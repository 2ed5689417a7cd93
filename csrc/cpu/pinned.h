// The definition of S in float64, and a queue that computes it four pairs at a time.
#pragma once

#include <cmath>
#include <cstddef>

#include "vector_loops.h"

namespace proto_engine {

inline size_t element_size(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

inline const void* row_of(const Rows& x, int64_t i) {
  return static_cast<const char*>(x.data) + static_cast<size_t>(i * x.stride) * element_size(x.dtype);
}

// S_ij = dot / sqrt(q_i q_j). sqrt(q * q) is exactly q, so S_ii and S of equal rows are exactly 1.
// Pairs go in one by one; sink(tag, S) comes out for each, in groups of four and at flush().
template <class Tag, class Sink>
class PinnedQueue {
 public:
  PinnedQueue(const Rows& x, const double* squares, Sink sink) : x_(x), squares_(squares), sink_(sink) {}

  void push(int64_t i, int64_t j, Tag tag) {
    a_[size_] = row_of(x_, i), b_[size_] = row_of(x_, j);
    product_[size_] = squares_[i] * squares_[j];
    tag_[size_] = tag;
    if (++size_ == 4) flush();
  }

  void flush() {
    if (size_ == 0) return;
    for (int t = size_; t < 4; ++t) a_[t] = a_[0], b_[t] = b_[0];
    double dot[4];
    vector_loops().dot4(x_.dtype, a_, b_, x_.dim, dot);
    const int n = size_;
    size_ = 0;
    for (int t = 0; t < n; ++t) sink_(tag_[t], dot[t] / std::sqrt(product_[t]));
  }

 private:
  const Rows& x_;
  const double* squares_;
  Sink sink_;
  int size_ = 0;
  const void* a_[4];
  const void* b_[4];
  double product_[4];
  Tag tag_[4];
};

}  // namespace proto_engine
