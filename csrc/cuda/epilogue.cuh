// What is done with a tile of s32 while it is in registers. One struct an epilogue; S is never stored unless
// the store itself is asked for.
//
// A tile loop leaves each thread with a small matrix s[kRows][kColumns]: the rows Loop::row(thread, r) and
// the columns Loop::column(thread, c) of the tile, every combination of the two. The lanes of a warp that
// share their rows differ in the bits kRowMask of their number, those that share their columns in the bits
// kColumnMask. Elements that are no pair have been made NaN, which no comparison counts.
#pragma once

#include "schedule.cuh"
#include "state.cuh"

namespace proto_engine {

// Sum over the lanes that differ in the bits of `mask`.
template <int kMask>
__device__ inline uint32_t sum_lanes(uint32_t value) {
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2)
    if (kMask & bit) value += __shfl_xor_sync(kWholeWarp, value, bit);
  return value;
}

// Room for `count` more entries of this thread in a list: the position of the first.
__device__ inline Counter append_position(Counter* length, uint32_t count) {
  const int lane = threadIdx.x % 32;
  uint32_t before = count;  // becomes the sum of this lane and those before it
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(kWholeWarp, before, step);
    if (lane >= step) before += other;
  }
  Counter start = 0;
  if (lane == 31 && before > 0) start = atomicAdd(length, static_cast<Counter>(before));
  start = __shfl_sync(kWholeWarp, start, 31);
  return start + before - count;
}

// How many pairs of a tile are above a value, for each of its rows and columns; emptied before and after use.
struct TileCounts {
  uint32_t rows[kTile], columns[kTile];

  template <class Loop>
  __device__ void clear(int thread) {
    for (int k = thread; k < kTile; k += Loop::kEpilogueThreads) rows[k] = columns[k] = 0;
  }
};

// Counts s > hi; returns how many elements of this thread have lo <= s <= hi.
template <class Loop>
__device__ inline uint32_t count_tile(TileCounts& counts, float lo, float hi,
                                      const float (&s)[Loop::kRows][Loop::kColumns], int thread) {
  static_assert(Loop::kColumns % 4 == 0, "four counters share a register");
  const int lane = threadIdx.x % 32;
  uint32_t by_column[Loop::kColumns / 4] = {};  // a byte each: no warp has more than 255 rows
  uint32_t inside = 0;
#pragma unroll
  for (int r = 0; r < Loop::kRows; ++r) {
    uint32_t by_row = 0;
#pragma unroll
    for (int c = 0; c < Loop::kColumns; ++c) {
      const uint32_t above = s[r][c] > hi;
      by_row += above;
      by_column[c / 4] += above << (8 * (c % 4));
      inside += s[r][c] >= lo;
    }
    inside -= by_row;
    by_row = sum_lanes<Loop::kRowMask>(by_row);
    if ((lane & Loop::kRowMask) == 0 && by_row) atomicAdd(&counts.rows[Loop::row(thread, r)], by_row);
  }
#pragma unroll
  for (int q = 0; q < Loop::kColumns / 4; ++q) {
    by_column[q] = sum_lanes<Loop::kColumnMask>(by_column[q]);
    if ((lane & Loop::kColumnMask) == 0 && by_column[q])
#pragma unroll
      for (int b = 0; b < 4; ++b)
        atomicAdd(&counts.columns[Loop::column(thread, 4 * q + b)], by_column[q] >> (8 * b) & 255u);
  }
  return inside;
}

// above[i] += #{j : s32 > hi} for rows and columns alike; pairs inside the bracket are appended to the list
// of their class and counted in its histogram.
template <class Loop>
struct CountEpilogue {
  struct Params {
    ClassState* state;   // [C]
    uint32_t* above;     // [M] rows of all classes
    Entry* entries;      // the lists of all classes
    Counter* histogram;  // [C, kBins]
  };
  using Shared = TileCounts;

  __device__ static void begin(const Params&, Shared& shared, int thread) { shared.clear<Loop>(thread); }

  __device__ static void tile(const Params& params, Shared& shared, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
    Loop::sync();  // the counters have been emptied
    ClassState& state = params.state[tile.c];
    const uint32_t inside = count_tile<Loop>(shared, state.lo, state.hi, s, thread);
    if (__any_sync(kWholeWarp, inside > 0)) keep(params, state, tile, s, thread, inside);
    Loop::sync();
    give_away(params, shared, tile, thread);
  }

  __device__ static void end(const Params&, Shared&, int) {}

 private:
  __device__ static void keep(const Params& params, ClassState& state, const Tile& tile,
                              const float (&s)[Loop::kRows][Loop::kColumns], int thread, uint32_t inside) {
    Counter position = append_position(&state.inside, inside);
    if (inside == 0) return;
    const float lo = state.lo, hi = state.hi, bins_lo = state.bins_lo, scale = bin_scale(bins_lo, state.bins_hi);
    const Counter capacity = static_cast<Counter>(state.capacity);
    Entry* list = params.entries + state.list_start;
    Counter* histogram = params.histogram + static_cast<int64_t>(tile.c) * kBins;
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c)
        if (s[r][c] >= lo && s[r][c] <= hi) {
          if (position < capacity)
            list[position] = {tile.i0 + Loop::row(thread, r), tile.j0 + Loop::column(thread, c), s[r][c]};
          ++position;
          atomicAdd(&histogram[bin_of32(s[r][c], bins_lo, scale)], Counter{1});
        }
  }

  __device__ static void give_away(const Params& params, Shared& shared, const Tile& tile, int thread) {
    for (int k = thread; k < kTile; k += Loop::kEpilogueThreads) {
      const uint32_t row = shared.rows[k], column = shared.columns[k];
      shared.rows[k] = shared.columns[k] = 0;
      if (row) atomicAdd(&params.above[tile.row_base + tile.i0 + k], row);
      if (column) atomicAdd(&params.above[tile.column_base + tile.j0 + k], column);
      const uint32_t total = sum_lanes<31>(row);
      if (k % 32 == 0 && total) atomicAdd(&params.state[tile.c].above, static_cast<Counter>(total));
    }
  }
};

// How the similarities of each class are distributed over bins_lo to bins_hi.
template <class Loop>
struct HistogramEpilogue {
  struct Params {
    const ClassState* state;  // [C]
    Counter* histogram;       // [C, kBins]
  };
  struct Shared {
    uint32_t bins[kBins];
    int32_t c;  // the class they belong to
  };

  __device__ static void begin(const Params&, Shared& shared, int thread) {
    for (int b = thread; b < kBins; b += Loop::kEpilogueThreads) shared.bins[b] = 0;
    if (thread == 0) shared.c = -1;
    Loop::sync();
  }

  __device__ static void tile(const Params& params, Shared& shared, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
    if (shared.c != tile.c) {  // the same for all threads
      give_away(params, shared, thread);
      Loop::sync();
      if (thread == 0) shared.c = tile.c;
      Loop::sync();
    }
    const float lo = params.state[tile.c].bins_lo, scale = bin_scale(lo, params.state[tile.c].bins_hi);
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c)
        if (s[r][c] == s[r][c]) atomicAdd(&shared.bins[bin_of32(s[r][c], lo, scale)], 1u);
  }

  __device__ static void end(const Params& params, Shared& shared, int thread) { give_away(params, shared, thread); }

 private:
  __device__ static void give_away(const Params& params, Shared& shared, int thread) {
    Loop::sync();
    if (shared.c < 0) return;
    Counter* histogram = params.histogram + static_cast<int64_t>(shared.c) * kBins;
    for (int b = thread; b < kBins; b += Loop::kEpilogueThreads) {
      if (shared.bins[b]) atomicAdd(&histogram[b], static_cast<Counter>(shared.bins[b]));
      shared.bins[b] = 0;
    }
  }
};

// The explicit matrix, both triangles, ones on the diagonal.
template <class Loop>
struct StoreEpilogue {
  struct Params {
    float* out;  // [m, m]
  };
  struct Shared {};

  __device__ static void begin(const Params&, Shared&, int) {}

  __device__ static void tile(const Params& params, Shared&, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
    const int64_t m = tile.rows;
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c) {
        const int64_t i = tile.i0 + Loop::row(thread, r), j = tile.j0 + Loop::column(thread, c);
        if (i < j && j < m) {
          params.out[i * m + j] = s[r][c];
          params.out[j * m + i] = s[r][c];
        } else if (i == j && i < m) {
          params.out[i * m + i] = 1.0f;
        }
      }
  }

  __device__ static void end(const Params&, Shared&, int) {}
};

}  // namespace proto_engine
