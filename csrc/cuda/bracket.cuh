// Closing in on the cutoff: what histograms and counts say about where it is. One block a class.
//
//   narrow  a histogram of sampled similarities -> a bracket [lo, hi] that holds the cutoff very probably
//   settle  the counts against the bracket      -> a window [window_lo, window_hi] that holds it for certain
//   locate  a histogram of S in the window      -> the one bin that holds it
//
// Entries of S are ranked: each pair counts twice, and the diagonal is m times 1. A cutoff that is not where
// it should be sets the class's status; the host then takes the slower way.
#pragma once

#include "block.cuh"
#include "schedule.cuh"
#include "state.cuh"

namespace proto_engine {

constexpr int kBinsEach = kBins / kScanThreads;
constexpr float kFarthest = 1.0625f;  // beyond every similarity

__host__ __device__ inline float round_down(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) > x ? nextafterf(f, -INFINITY) : f;
}
__host__ __device__ inline float round_up(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) < x ? nextafterf(f, INFINITY) : f;
}

__host__ __device__ inline float clamped(double s) {
  return s < -kFarthest ? -kFarthest : s > kFarthest ? kFarthest : static_cast<float>(s);
}

// Where in a sample of n pairs, sorted, the cutoff must be looked for.
struct Targets {
  double lower, upper;  // ranks in the sample; below 0 or from n on: beyond it
};
__host__ __device__ inline Targets sample_targets(int64_t rank, int64_t m, double n, double sigmas) {
  const double pairs = static_cast<double>(m) * static_cast<double>(m - 1) / 2.0;
  // All of the diagonal may lie below the cutoff, or none of it.
  const double lower = static_cast<double>(rank - m) / 2.0 / pairs,
               upper = (static_cast<double>(rank) / 2.0 + 1.0) / pairs;
  const double p = upper < 1.0 ? upper : 1.0;
  const double spread = n >= pairs ? 0.0 : sigmas * sqrt(p * (1.0 - p) / n) + 1.0 / n;
  return {floor((lower - spread) * n), ceil((upper + spread) * n)};
}

// The rank of the cutoff among the entries that are not below the bracket, or among those in the window.
__host__ __device__ inline int64_t pairs_below(const ClassState& s) {
  return s.m * (s.m - 1) / 2 - static_cast<int64_t>(s.above) - static_cast<int64_t>(s.inside);
}
__host__ __device__ inline int64_t rank_in_bracket(const ClassState& s) {
  return s.rank - 2 * pairs_below(s) - (s.lo > 1.0f ? s.m : 0);
}
__host__ __device__ inline int64_t rank_in_window(const ClassState& s) {
  return s.rank - 2 * (pairs_below(s) + static_cast<int64_t>(s.below_window)) - (s.window_lo > 1.0 ? s.m : 0);
}
__host__ __device__ inline bool diagonal_in(double lo, double hi) { return lo <= 1.0 && 1.0 <= hi; }

// margin: how far at least the bracket reaches beyond the bins that were found; 0 when another histogram follows.
__global__ void __launch_bounds__(kScanThreads)
    narrow_kernel(ClassState* states, Counter* histograms, double sigmas, double margin) {
  ClassState& state = states[blockIdx.x];
  Counter* histogram = histograms + static_cast<int64_t>(blockIdx.x) * kBins;
  __shared__ int first, last;
  __shared__ Counter ahead[2];  // of each of the two, though nobody asks: both are written at the same time
  Counter count[kBinsEach], sum = 0, n;
  for (int k = 0; k < kBinsEach; ++k) sum += count[k] = histogram[threadIdx.x * kBinsEach + k];
  if (threadIdx.x == 0) {
    first = 0;
    last = kBins - 1;
  }
  const Counter before = prefix_sum(sum, &n);
  const Targets target = sample_targets(state.rank, state.m, static_cast<double>(n), sigmas);
  if (n > 0 && target.lower >= 0) find_rank(count, before, static_cast<Counter>(target.lower), &first, &ahead[0]);
  if (n > 0 && target.upper < static_cast<double>(n))
    find_rank(count, before, static_cast<Counter>(target.upper < 0 ? 0 : target.upper), &last, &ahead[1]);
  __syncthreads();
  const Interval found = edges_of(first, last, state.bins_lo, state.bins_hi);
  // The next histogram spans the bracket and resolves no more than its bins: some of them belong to the margin.
  const double reach = margin + 3.0 * (clamped(found.hi) - clamped(found.lo)) / kBins;
  const float lo = round_down(found.lo - reach), hi = round_up(found.hi + reach);
  Counter expected = 0;
  if (n > 0) {
    const int low = bin_of(lo, state.bins_lo, state.bins_hi), high = bin_of(hi, state.bins_lo, state.bins_hi);
    for (int k = 0; k < kBinsEach; ++k) {
      const int b = static_cast<int>(threadIdx.x) * kBinsEach + k;
      if (low <= b && b <= high) expected += count[k];
    }
  }
  Counter inside;
  prefix_sum(expected, &inside);
  for (int k = 0; k < kBinsEach; ++k) histogram[threadIdx.x * kBinsEach + k] = 0;
  if (threadIdx.x == 0) {
    const double pairs = static_cast<double>(state.m) * static_cast<double>(state.m - 1) / 2.0;
    state.expected = n > 0 ? static_cast<double>(inside) / static_cast<double>(n) * pairs : 0.0;
    state.lo = lo;
    state.hi = hi;
    state.bins_lo = clamped(lo);
    state.bins_hi = clamped(hi);
  }
}

// bound: how far s32 can be from S.
__global__ void __launch_bounds__(kScanThreads) settle_kernel(ClassState* states, Counter* histograms, double bound) {
  ClassState& state = states[blockIdx.x];
  Counter* histogram = histograms + static_cast<int64_t>(blockIdx.x) * kBins;
  __shared__ int bin;
  __shared__ Counter ahead;
  const bool with_diagonal = diagonal_in(state.lo, state.hi);
  const int diagonal = bin_of32(1.0f, state.bins_lo, bin_scale(state.bins_lo, state.bins_hi));
  const int64_t rank = rank_in_bracket(state);
  const int64_t entries = 2 * static_cast<int64_t>(state.inside) + (with_diagonal ? state.m : 0);
  Counter count[kBinsEach], sum = 0, total;
  for (int k = 0; k < kBinsEach; ++k) {
    const int b = static_cast<int>(threadIdx.x) * kBinsEach + k;
    count[k] = 2 * histogram[b] + (with_diagonal && b == diagonal ? static_cast<Counter>(state.m) : 0);
    sum += count[k];
    histogram[b] = 0;
  }
  const Counter before = prefix_sum(sum, &total);
  const bool missed = rank < 0 || rank >= entries;
  if (!missed) find_rank(count, before, static_cast<Counter>(rank), &bin, &ahead);
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (static_cast<int64_t>(state.inside) > state.capacity) state.status = kOverflow;
  if (missed) state.status = kMissed;
  if (state.status != kOk) return;
  // Order statistics move by no more than their entries: the cutoff is within one bound of t, and what is
  // more than two bounds from t is on a known side of it.
  const double width = (static_cast<double>(state.bins_hi) - state.bins_lo) / kBins;
  const double t_lo = state.bins_lo + (bin - 1) * width, t_hi = state.bins_lo + (bin + 2) * width;
  state.window_lo = t_lo - 2.0 * bound;
  state.window_hi = t_hi + 2.0 * bound;
  state.exact_lo = t_lo - bound;
  state.exact_hi = t_hi + bound;
  if (state.window_lo < state.lo || state.window_hi > state.hi) state.status = kMissed;
}

__global__ void __launch_bounds__(kScanThreads) locate_kernel(ClassState* states, Counter* histograms) {
  ClassState& state = states[blockIdx.x];
  Counter* histogram = histograms + static_cast<int64_t>(blockIdx.x) * kBins;
  __shared__ int bin;
  __shared__ Counter ahead, here;
  const bool with_diagonal = diagonal_in(state.window_lo, state.window_hi);
  const int diagonal = bin_of(1.0, state.exact_lo, state.exact_hi);
  const int64_t rank = state.status == kOk ? rank_in_window(state) : -1;
  Counter count[kBinsEach], sum = 0, total;
  if (threadIdx.x == 0) bin = -1;
  for (int k = 0; k < kBinsEach; ++k) {
    const int b = static_cast<int>(threadIdx.x) * kBinsEach + k;
    count[k] = 2 * histogram[b] + (with_diagonal && b == diagonal ? static_cast<Counter>(state.m) : 0);
    sum += count[k];
  }
  const Counter before = prefix_sum(sum, &total);
  if (rank >= 0) find_rank(count, before, static_cast<Counter>(rank), &bin, &ahead);
  __syncthreads();
  if (threadIdx.x == 0 && bin >= 0) here = histogram[bin];
  __syncthreads();
  for (int k = 0; k < kBinsEach; ++k) histogram[threadIdx.x * kBinsEach + k] = 0;
  if (threadIdx.x != 0 || state.status != kOk) return;
  if (bin < 0) {
    state.status = kMissed;
    return;
  }
  state.bin = bin;
  state.candidate_rank = rank - static_cast<int64_t>(ahead);
  state.diagonal = with_diagonal && bin == diagonal ? state.m : 0;
  if (here > kMaxCandidates) state.status = kTies;
}

}  // namespace proto_engine
