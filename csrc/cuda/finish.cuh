// The last steps to cutoff and density: the pairs kept by the pass over the tiles are decided in float64.
//
//   decide   S of the pairs in the window, into a histogram; pairs above it count at once
//   collect  the values of S in the bin of the cutoff
//   cutoff   the entry of the wanted rank among them
//   patch    the decided pairs count against the cutoff
//   rho      sum of signs from the counts
//
// Lists are short: a few pairs in a thousand. A group of eight threads looks a pair up and reads
// 2 * dim elements for it. Grid: (blocks, classes).
#pragma once

#include "bracket.cuh"
#include "rows.cuh"

namespace proto_engine {

__device__ inline int64_t list_length(const ClassState& state) {
  const int64_t inside = static_cast<int64_t>(state.inside);
  return inside < state.capacity ? inside : state.capacity;
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    decide_kernel(StoredRows<T> x, const int64_t* offsets, ClassState* states, Entry* entries, uint32_t* above,
                  Counter* histograms) {
  ClassState& state = states[blockIdx.y];
  if (state.status != kOk) return;
  const int64_t base = offsets[blockIdx.y], length = list_length(state);
  Entry* list = entries + state.list_start;
  const bool leads = threadIdx.x % kLanes == 0;
  uint32_t below = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < length; first += step) {
    const int64_t t = first + threadIdx.x / kLanes;
    const bool there = t < length;
    const Entry entry = there ? list[t] : Entry{0, 0, 0.0};
    const bool is_below = there && entry.value < state.window_lo, is_above = there && entry.value > state.window_hi;
    const bool open = there && !is_below && !is_above;
    const double s = pair_similarity(x, base + entry.row, base + entry.column, open);
    __syncwarp();  // all eight have read the entry that one of them writes to below
    if (!leads || !there) continue;
    below += is_below;
    if (is_above) {
      atomicAdd(&above[base + entry.row], 1u);
      atomicAdd(&above[base + entry.column], 1u);
    }
    if (open)
      atomicAdd(&histograms[static_cast<int64_t>(blockIdx.y) * kBins + bin_of(s, state.exact_lo, state.exact_hi)],
                Counter{1});
    list[t].value = open ? s : static_cast<double>(not_a_number());
  }
  if (below) atomicAdd(&state.below_window, static_cast<Counter>(below));
}

// candidates: [C, kMaxCandidates]
__global__ void collect_kernel(ClassState* states, const Entry* entries, double* candidates) {
  ClassState& state = states[blockIdx.y];
  if (state.status != kOk) return;
  const int64_t length = list_length(state), step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < length; t += step) {
    const double s = entries[state.list_start + t].value;
    if (s == s && bin_of(s, state.exact_lo, state.exact_hi) == state.bin)
      candidates[static_cast<int64_t>(blockIdx.y) * kMaxCandidates + atomicAdd(&state.num_candidates, Counter{1})] =
          s;
  }
}

// A radix selection, eight bits at a time: how many entries share the bits found so far and have each digit next.
__global__ void __launch_bounds__(kScanThreads) cutoff_kernel(ClassState* states, const double* candidates) {
  ClassState& state = states[blockIdx.x];
  if (state.status != kOk) return;
  const double* values = candidates + static_cast<int64_t>(blockIdx.x) * kMaxCandidates;
  const int64_t n = static_cast<int64_t>(state.num_candidates);
  __shared__ uint32_t digits[kScanThreads];  // of 2 * kMaxCandidates + m entries at most
  __shared__ int digit;
  __shared__ Counter ahead;
  Counter rank = static_cast<Counter>(state.candidate_rank);
  uint64_t found = 0;  // the leading bits of the cutoff
  for (int shift = 56; shift >= 0; shift -= 8) {
    const uint64_t known = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
    digits[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t t = threadIdx.x; t < n + 1; t += kScanThreads) {
      const uint64_t bits = ordered(t < n ? values[t] : 1.0);
      const uint32_t weight = t < n ? 2 : static_cast<uint32_t>(state.diagonal);
      if ((bits & known) == found) atomicAdd(&digits[bits >> shift & 255], weight);
    }
    __syncthreads();
    Counter total;
    const Counter count[1] = {digits[threadIdx.x]};
    const Counter before = prefix_sum(count[0], &total);
    find_rank(count, before, rank, &digit, &ahead);
    __syncthreads();
    found |= static_cast<uint64_t>(digit) << shift;
    rank -= ahead;
    __syncthreads();
  }
  if (threadIdx.x == 0) state.cutoff = from_ordered(found);
}

__global__ void patch_kernel(const int64_t* offsets, const ClassState* states, const Entry* entries, uint32_t* above,
                             uint32_t* equal) {
  const ClassState& state = states[blockIdx.y];
  if (state.status != kOk) return;
  const int64_t base = offsets[blockIdx.y], length = list_length(state);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < length; t += step) {
    const Entry entry = entries[state.list_start + t];
    uint32_t* counts = entry.value > state.cutoff ? above : entry.value == state.cutoff ? equal : nullptr;
    if (counts == nullptr) continue;
    atomicAdd(&counts[base + entry.row], 1u);
    atomicAdd(&counts[base + entry.column], 1u);
  }
}

// rho_i = above - below = 2 above + equal - m, the diagonal included.   rho [M] int32
__global__ void rho_kernel(const int64_t* offsets, const ClassState* states, const uint32_t* above,
                           const uint32_t* equal, int32_t* rho) {
  const ClassState& state = states[blockIdx.y];
  const int64_t base = offsets[blockIdx.y];
  const int64_t diagonal = state.cutoff < 1.0 ? 2 : state.cutoff == 1.0 ? 1 : 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < state.m; i += step)
    rho[base + i] =
        static_cast<int32_t>(2 * static_cast<int64_t>(above[base + i]) + equal[base + i] + diagonal - state.m);
}

}  // namespace proto_engine
