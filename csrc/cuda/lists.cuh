// Lists of pairs from a pass over some of the tiles, looked up one by one: the slower, bounded way to exact
// results, and eta of rows anywhere in the density order. One class.
#pragma once

#include "epilogue.cuh"
#include "rows.cuh"

namespace proto_engine {

// S of listed pairs into `bins` equal bins of [lo, hi]: count, least and most (as ordered integers) of each,
// and how many are above hi.   least, most: [bins], started from all ones and from zero
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    list_bins_kernel(StoredRows<T> x, const Entry* list, int64_t n, double lo, double hi, int32_t bins,
                     Counter* count, Counter* least, Counter* most, Counter* above) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < n; first += step) {
    const int64_t t = first + threadIdx.x / kLanes;
    const bool there = t < n;
    const double s = pair_similarity(x, there ? list[t].row : 0, there ? list[t].column : 0, there);
    if (!there || threadIdx.x % kLanes != 0 || s < lo) continue;
    if (s > hi) {
      atomicAdd(above, Counter{1});
      continue;
    }
    const int64_t at = static_cast<int64_t>((s - lo) / (hi - lo) * bins), b = at < bins ? at : bins - 1;
    atomicAdd(&count[b], Counter{1});
    atomicMin(&least[b], static_cast<Counter>(ordered(s)));
    atomicMax(&most[b], static_cast<Counter>(ordered(s)));
  }
}

// Listed pairs against a cutoff: above[i] and equal[i] for both rows.   [m]
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    list_threshold_kernel(StoredRows<T> x, const Entry* list, int64_t n, double cutoff, uint32_t* above,
                          uint32_t* equal) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < n; first += step) {
    const int64_t t = first + threadIdx.x / kLanes;
    const bool there = t < n;
    const Entry entry = there ? list[t] : Entry{0, 0, 0.0};
    const double s = pair_similarity(x, entry.row, entry.column, there);
    uint32_t* counts = s > cutoff ? above : s == cutoff ? equal : nullptr;
    if (!there || threadIdx.x % kLanes != 0 || counts == nullptr) continue;
    atomicAdd(&counts[entry.row], 1u);
    atomicAdd(&counts[entry.column], 1u);
  }
}

// ---- extremes: rows[t] against order[k], k < limit[t] --------------------------------------------------

__device__ inline uint32_t ordered32(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_ordered32(uint32_t order) {
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

// First pass: best[t] = max of +-s32.
template <class Loop>
struct BestEpilogue {
  using Params = Extremes;
  struct Shared {};
  __device__ static void begin(const Params&, Shared&, int) {}
  __device__ static void end(const Params&, Shared&, int) {}
  __device__ static void tile(const Params& params, Shared&, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r) {
      const int64_t t = tile.i0 + Loop::row(thread, r);
      const int64_t limit = t < tile.rows ? params.limit[t] : 0;
      const float sign = t < tile.rows && params.smallest[t] ? -1.0f : 1.0f;
      uint32_t best = 0;
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c)
        if (tile.j0 + Loop::column(thread, c) < limit) best = max(best, ordered32(sign * s[r][c]));
#pragma unroll
      for (int bit = 1; bit < 32; bit *= 2)
        if (Loop::kRowMask & bit) best = max(best, __shfl_xor_sync(kWholeWarp, best, bit));
      if (best && (threadIdx.x & Loop::kRowMask) == 0) atomicMax(&params.best[t], best);
    }
  }
};

// Second pass: pairs that could be the best in float64 (within `reach` of it in s32) are listed.
template <class Loop>
struct NearEpilogue {
  struct Params {
    Extremes extremes;
    float reach;
    Entry* list;
    Counter* length;
    Counter capacity;
  };
  struct Shared {};
  __device__ static void begin(const Params&, Shared&, int) {}
  __device__ static void end(const Params&, Shared&, int) {}
  __device__ static void tile(const Params& params, Shared&, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r) {
      const int64_t t = tile.i0 + Loop::row(thread, r);
      if (t >= tile.rows) continue;
      const int64_t limit = params.extremes.limit[t];
      const float sign = params.extremes.smallest[t] ? -1.0f : 1.0f;
      const float floor = from_ordered32(params.extremes.best[t]) - params.reach;
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c) {
        const int32_t k = tile.j0 + Loop::column(thread, c);
        if (k >= limit || !(sign * s[r][c] >= floor)) continue;
        const Counter position = atomicAdd(params.length, Counter{1});
        if (position < params.capacity) params.list[position] = {static_cast<int32_t>(t), k, 0.0};
      }
    }
  }
};

// eta[t] = max of +-S over the listed pairs of t, as an ordered integer.   Starts from zero.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    list_extremes_kernel(StoredRows<T> x, const Entry* list, int64_t n, const int64_t* rows, const int64_t* order,
                         const uint8_t* smallest, Counter* eta) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < n; first += step) {
    const int64_t at = first + threadIdx.x / kLanes;
    const bool there = at < n;
    const Entry entry = there ? list[at] : Entry{0, 0, 0.0};
    const double s = pair_similarity(x, there ? rows[entry.row] : 0, there ? order[entry.column] : 0, there);
    if (there && threadIdx.x % kLanes == 0)
      atomicMax(&eta[entry.row], static_cast<Counter>(ordered(smallest[entry.row] ? -s : s)));
  }
}

}  // namespace proto_engine
