// Counts of pairs for each row: of all rows together, or of each class. The two ways in which a pass over the tiles
// (density.cpp) counts; both are sums of integers, so the order in which threads add to them does not matter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vector_loops.h"

namespace proto_engine {

constexpr int64_t kVectorSlack = 16;  // a whole vector is stored where only its first elements count

// above[i] = #{j : counted as above}, a worker's own. 32 bits hold a count of at most m < 2^31.
struct RowCounts {
  std::vector<int32_t> above, equal;

  // Counts s > hi of one row of a tile for row i and for its columns; those inside [lo, hi] go to `columns`.
  int64_t scan(float lo, float hi, int64_t i, int64_t j0, const float* s, int64_t n, std::vector<int32_t>& columns) {
    if (static_cast<int64_t>(columns.size()) < n + kVectorSlack) columns.resize(n + kVectorSlack);
    int64_t found = 0;
    above[i] +=
        static_cast<int32_t>(vector_loops().scan_bracket(s, n, lo, hi, above.data() + j0, columns.data(), &found));
    return found;
  }
  void add_above(int64_t i, int64_t j) { ++above[i], ++above[j]; }
  void add_equal(int64_t i, int64_t j) { ++equal[i], ++equal[j]; }
  void finish() {}
};

// above[i, c] = #{j of class c : counted as above}, one array for all workers: a copy each would be m C large. Rows
// lie class after class, so what a row of a tile adds to its columns belongs to one class: the worker sums it up by
// itself and gives it away when the class of the rows changes or other columns come.
class ClassCounts {
 public:
  // offsets: [C + 1] where each class begins; above: [m, C], started from zero.
  ClassCounts(const int64_t* offsets, int64_t num_classes, int32_t* above)
      : offsets_(offsets), num_classes_(num_classes), above_(above) {}

  int64_t scan(float lo, float hi, int64_t i, int64_t j0, const float* s, int64_t n, std::vector<int32_t>& columns) {
    if (n == 0) return 0;
    if (static_cast<int64_t>(columns.size()) < n + kVectorSlack) columns.resize(n + kVectorSlack);
    const int64_t own = class_of(i);
    if (own != row_class_ || j0 < first_ || j0 + n > last_) {
      finish();
      row_class_ = own, first_ = j0, last_ = j0 + n;
      of_columns_.assign(n, 0);
    }
    int64_t found = 0;
    for (int64_t c = class_of(j0), begin = j0; begin < j0 + n; ++c) {
      const int64_t end = std::min(offsets_[c + 1], j0 + n);
      if (end <= begin) continue;  // an empty class
      int32_t* inside = columns.data() + found;
      int64_t more = 0;
      const int64_t total = vector_loops().scan_bracket(s + (begin - j0), end - begin, lo, hi,
                                                        of_columns_.data() + (begin - first_), inside, &more);
      for (int64_t t = 0; t < more; ++t) inside[t] += static_cast<int32_t>(begin - j0);
      found += more;
      add(i, c, static_cast<int32_t>(total));
      begin = end;
    }
    return found;
  }
  void add_above(int64_t i, int64_t j) { add(i, class_of(j), 1), add(j, class_of(i), 1); }
  void add_equal(int64_t, int64_t) {}

  // Gives away what is summed up; after the last tile too.
  void finish() {
    for (int64_t j = first_; j < last_; ++j) add(j, row_class_, of_columns_[j - first_]);
    first_ = last_ = 0;
    row_class_ = -1;
  }

 private:
  int64_t class_of(int64_t i) const {
    return std::upper_bound(offsets_, offsets_ + num_classes_ + 1, i) - offsets_ - 1;
  }
  void add(int64_t i, int64_t c, int32_t count) {
    if (count != 0) __atomic_fetch_add(above_ + i * num_classes_ + c, count, __ATOMIC_RELAXED);
  }

  const int64_t* offsets_;
  int64_t num_classes_;
  int32_t* above_;
  int64_t row_class_ = -1, first_ = 0, last_ = 0;  // what of_columns_ counts: pairs of that class, for these columns
  std::vector<int32_t> of_columns_;
};

}  // namespace proto_engine
