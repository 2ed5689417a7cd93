// From densities to picks, all classes at once: the densest rows in order, their eta, and the published rule.
//
// A pick must differ from every denser row (eta below eta_max). The rows denser than the t-th of the order
// are at most the t before it, so that the first few picks take no pass over the tiles: only similarities
// among the kTop densest rows, in float64. A class whose picks lie deeper is left to the host.
#pragma once

#include "block.cuh"
#include "rows.cuh"
#include "state.cuh"

namespace proto_engine {

static_assert(kTop == kScanThreads && kRowThreads == kScanThreads, "one block shape");

// Densities first, then the lower row number, as integers of that order.
__device__ inline uint64_t density_key(int32_t rho, int64_t i) {
  return static_cast<uint64_t>(static_cast<uint32_t>(rho) ^ 0x80000000u) << 32 |
         (0xffffffffu - static_cast<uint32_t>(i));
}

// top[c]: the kTop densest rows of class c in order, by their number in the class; -1 beyond its m rows.
// Grid: a block a class. A radix selection finds the key of the last one, a bitonic sort puts them in order.
__global__ void __launch_bounds__(kTop)
    top_kernel(const int64_t* offsets, const ClassState* states, const int32_t* rho, int32_t* top) {
  const int64_t m = states[blockIdx.x].m;
  const int32_t* density = rho + offsets[blockIdx.x];
  const int wanted = m < kTop ? static_cast<int>(m) : kTop, thread = threadIdx.x;
  __shared__ uint32_t digits[kTop];  // 64 bits would be added to by trial and error, and most rows share a digit
  __shared__ int digit;
  __shared__ Counter ahead;
  __shared__ uint64_t keys[kTop];
  __shared__ int filled;
  uint64_t least = 0;                               // of the wanted keys
  Counter rank = static_cast<Counter>(m - wanted);  // its rank among all, ascending
  for (int shift = 56; shift >= 0; shift -= 8) {
    const uint64_t known = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
    digits[thread] = 0;
    __syncthreads();
    for (int64_t i = thread; i < m; i += kTop) {
      const uint64_t key = density_key(density[i], i);
      if ((key & known) == least) atomicAdd(&digits[key >> shift & 255], 1u);
    }
    __syncthreads();
    Counter total;
    const Counter count[1] = {digits[thread]};
    const Counter before = prefix_sum(count[0], &total);
    find_rank(count, before, rank, &digit, &ahead);
    __syncthreads();
    least |= static_cast<uint64_t>(digit) << shift;
    rank -= ahead;
    __syncthreads();
  }
  keys[thread] = 0;
  if (thread == 0) filled = 0;
  __syncthreads();
  for (int64_t i = thread; i < m; i += kTop) {
    const uint64_t key = density_key(density[i], i);
    if (key >= least) keys[atomicAdd(&filled, 1)] = key;
  }
  __syncthreads();
  for (int size = 2; size <= kTop; size *= 2)
    for (int apart = size / 2; apart > 0; apart /= 2) {
      const int other = thread ^ apart;
      const uint64_t mine = keys[thread], its = keys[other];
      __syncthreads();
      const bool keep_greater = ((thread & size) == 0) == (thread < other);  // descending
      keys[thread] = (mine > its) == keep_greater ? mine : its;
      __syncthreads();
    }
  top[static_cast<int64_t>(blockIdx.x) * kTop + thread] =
      thread < wanted ? static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(keys[thread])) : -1;
}

// smallest[c, q] = min over all rows j of S of the q-th densest row and j, as an ordered integer, for those of
// the kDensest first rows that have the highest density.   Grid: (blocks, classes). Starts from all ones.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    smallest_kernel(StoredRows<T> x, const int64_t* offsets, const ClassState* states, const int32_t* rho,
                    const int32_t* top, Counter* smallest) {
  const int64_t base = offsets[blockIdx.y], m = states[blockIdx.y].m;
  const int32_t* order = top + static_cast<int64_t>(blockIdx.y) * kTop;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int q = 0; q < kDensest && order[q] >= 0 && rho[base + order[q]] == rho[base + order[0]]; ++q) {
    uint64_t least = ~uint64_t{0};
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < m; first += step) {
      const int64_t j = first + threadIdx.x / kLanes;
      const double s = pair_similarity(x, base + order[q], base + (j < m ? j : 0), j < m);
      if (j < m && ordered(s) < least) least = ordered(s);
    }
    if (threadIdx.x % kLanes == 0 && least != ~uint64_t{0})
      atomicMin(&smallest[static_cast<int64_t>(blockIdx.y) * kDensest + q], static_cast<Counter>(least));
  }
}

// Down the density order, rows that may be picked and have eta < eta_max, until p are found; the first that
// may be picked is always taken.   row, density [C, p] int32, eta [C, p] float64. Grid: a block a class.
template <class T>
__global__ void __launch_bounds__(kTop)
    pick_kernel(StoredRows<T> x, const int64_t* offsets, const ClassState* states, const int32_t* rho,
                const int32_t* top, const Counter* smallest, const uint8_t* may_pick, int32_t p, double eta_max,
                Picked* picked, int32_t* row, int32_t* density, double* eta) {
  const int64_t c = blockIdx.x, base = offsets[c], m = states[c].m;
  const int thread = threadIdx.x, group = thread / kLanes;
  __shared__ int32_t order[kTop];
  __shared__ int32_t rho_of[kTop];
  __shared__ Counter greatest;
  order[thread] = top[c * kTop + thread];
  rho_of[thread] = order[thread] >= 0 ? rho[base + order[thread]] : 0;
  __syncthreads();
  const int n = m < kTop ? static_cast<int>(m) : kTop;
  int count = 0, rejected = 0, limit = 0;
  bool deep = states[c].status != kOk;
  for (int t = 0; t < n && count < p && !deep; ++t) {    // the same for all threads of the block
    if (t > 0 && rho_of[t] != rho_of[t - 1]) limit = t;  // rows before this are denser
    const int64_t i = base + order[t];
    if (may_pick != nullptr && !may_pick[i]) continue;
    if (limit == 0 && t >= kDensest) {
      deep = true;
      break;
    }
    if (thread == 0) greatest = limit == 0 ? smallest[c * kDensest + t] : 0;
    __syncthreads();
    for (int first = 0; first < limit; first += kRowGroups) {
      const int k = first + group;
      const double s = pair_similarity(x, i, base + (k < limit ? order[k] : 0), k < limit);
      if (k < limit && thread % kLanes == 0) atomicMax(&greatest, static_cast<Counter>(ordered(s)));
    }
    __syncthreads();
    const double value = from_ordered(greatest);
    __syncthreads();  // before `greatest` is written again
    if (!(value < eta_max || (count == 0 && rejected == 0))) {
      ++rejected;
      continue;
    }
    if (thread == 0) {
      row[c * p + count] = order[t];
      density[c * p + count] = rho_of[t];
      eta[c * p + count] = value;
    }
    ++count;
  }
  if (thread != 0) return;
  if (count < p && n < m) deep = true;
  picked[c] = {count, rejected, states[c].status != kOk ? states[c].status : deep ? kDeep : kOk, 0};
}

}  // namespace proto_engine
