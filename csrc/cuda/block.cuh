// What a block of kScanThreads threads does together: prefix sums, and finding a rank in a histogram.
#pragma once

#include "platform.cuh"

namespace proto_engine {

constexpr int kScanThreads = 256;

// The sum of `value` over the threads before this one; *total gets the sum over all.
__device__ inline Counter prefix_sum(Counter value, Counter* total) {
  __shared__ Counter sums[kScanThreads];
  const int thread = threadIdx.x;
  sums[thread] = value;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const Counter before = thread >= step ? sums[thread - step] : 0;
    __syncthreads();
    sums[thread] += before;
    __syncthreads();
  }
  const Counter inclusive = sums[thread];
  *total = sums[kScanThreads - 1];
  __syncthreads();  // before the next call writes
  return inclusive - value;
}

// A histogram of kCells cells, of which thread t holds the kCells / kScanThreads consecutive ones from
// t * kEach in `count`; `before` is the prefix sum of their sums. Sets *cell and *ahead, in shared memory, to
// the cell that holds the entry of rank `rank` and to the number of entries in the cells ahead of it.
template <int kEach>
__device__ inline void find_rank(const Counter (&count)[kEach], Counter before, Counter rank, int* cell,
                                 Counter* ahead) {
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (before <= rank && rank < before + count[k]) {
      *cell = static_cast<int>(threadIdx.x) * kEach + k;
      *ahead = before;
    }
    before += count[k];
  }
}

}  // namespace proto_engine
