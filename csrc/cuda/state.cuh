// What is known of each class while its cutoff is closed in on. One record a class, in device memory; the
// host writes it before the first launch and reads it after the last.
#pragma once

#include "platform.cuh"

namespace proto_engine {

constexpr int kBins = 4096;           // of every histogram; the first and the last also hold what lies beyond
constexpr int kMaxCandidates = 4096;  // values of S that are sorted out
constexpr int kTop = 256;             // rows of the density order that are looked at; one a thread
constexpr int kDensest = 4;           // rows of the highest density whose smallest similarity is found

enum Status : int32_t {
  kOk = 0,
  kMissed = 1,    // the cutoff is not where the sample said, or too near an end of the bracket
  kOverflow = 2,  // more pairs inside the bracket than there is room for
  kTies = 3,      // more equal similarities at the cutoff than are sorted out here
  kDeep = 4,      // the picks lie deeper in the density order than is looked here
};

struct ClassState {
  int64_t m;           // rows
  int64_t rank;        // of the cutoff among the m * m similarities
  int64_t list_start;  // the class's part of the entries
  int64_t capacity;
  float lo, hi;                 // the bracket: pairs with lo <= s32 <= hi are kept
  float bins_lo, bins_hi;       // what the histogram spans
  double window_lo, window_hi;  // pairs with s32 inside are decided in float64
  double exact_lo, exact_hi;    // what the histogram of their S spans
  Counter above;                // pairs with s32 > hi
  Counter inside;               // pairs inside the bracket, kept or not
  Counter below_window;         // of those, pairs with s32 < window_lo
  Counter num_candidates;       // values of S in the bin of the cutoff
  int64_t candidate_rank;       // of the cutoff among them, each counted twice, and the diagonal
  int64_t diagonal;             // entries of the diagonal among them
  int64_t bin;                  // the bin of the cutoff
  double expected;              // pairs that the sample expects inside the bracket
  double cutoff;
  int32_t status;
  int32_t padding;
};
static_assert(sizeof(ClassState) == 160, "mirrored in Python");

// A pair inside a bracket, by its rows within the class. `value` is s32, later S, or NaN where S is not needed.
struct Entry {
  int32_t row, column;
  double value;
};

// The picks of one class.
struct Picked {
  int32_t count, rejected;  // picks, and rows that were turned down on the way to them
  int32_t status, padding;
};

// Of listed rows against the rows of an order: row t counts up to limit[t], by its smallest similarity where
// smallest[t] != 0.
struct Extremes {
  const int64_t* limit;     // [n]
  const uint8_t* smallest;  // [n]
  uint32_t* best;           // [n] greatest +-s32, as an ordered integer
};

// Bins are monotone in s: a greater similarity is never in a lower bin.
__host__ __device__ inline int bin_of(double s, double lo, double hi) {
  const double b = (s - lo) * (kBins / (hi - lo));
  return b <= 0.0 ? 0 : b >= kBins - 1 ? kBins - 1 : static_cast<int>(b);
}

__host__ __device__ inline int bin_of32(float s, float lo, float scale) {
  const float b = (s - lo) * scale;
  return b <= 0.0f ? 0 : b >= kBins - 1 ? kBins - 1 : static_cast<int>(b);
}
__host__ __device__ inline float bin_scale(float lo, float hi) { return kBins / (hi - lo); }

// An interval that holds every value of bins first to last: one bin more on either side than the arithmetic
// would need without rounding, and everything beyond the ends for the first and the last bin.
struct Interval {
  double lo, hi;
};
__host__ __device__ inline Interval edges_of(int first, int last, double lo, double hi) {
  const double width = (hi - lo) / kBins;
  return {first <= 0 ? -INFINITY : lo + (first - 1) * width, last >= kBins - 1 ? INFINITY : lo + (last + 2) * width};
}

}  // namespace proto_engine
