// Counts by class: for each row how many rows of every class are above a cutoff. One pass over the tiles of all rows,
// which lie class after class; the pairs that s32 does not decide are listed, and decided in float64.
#pragma once

#include "epilogue.cuh"
#include "rows.cuh"

namespace proto_engine {

// above[i, class of j] += (s32 > hi), and the same for j; pairs with lo <= s32 <= hi are appended to the list.
//
// Nearly all tiles lie between two classes: they are counted like any tile, in shared memory, and each row and column
// adds to one place. A tile with a border of classes in it adds its pairs one by one.
template <class Loop>
struct ClassCountEpilogue {
  struct Params {
    const int32_t* class_of;  // [m]
    int64_t num_classes;
    float lo, hi;
    uint32_t* above;  // [m, C]
    Entry* list;
    Counter* length;  // of the list, and of what did not fit
    Counter capacity;
  };
  using Shared = TileCounts;

  __device__ static void begin(const Params&, Shared& shared, int thread) { shared.clear<Loop>(thread); }

  __device__ static void tile(const Params& params, Shared& shared, const Tile& tile,
                              float (&s)[Loop::kRows][Loop::kColumns], int thread) {
    const int32_t i_last = last_of(tile.i0, tile.rows), j_last = last_of(tile.j0, tile.columns);
    const int32_t row_class = params.class_of[tile.i0], column_class = params.class_of[tile.j0];
    uint32_t inside = 0;
    if (row_class == params.class_of[i_last] && column_class == params.class_of[j_last]) {  // for all threads alike
      Loop::sync();  // the counters have been emptied
      inside = count_tile<Loop>(shared, params.lo, params.hi, s, thread);
      Loop::sync();
      give_away(params, shared, tile, row_class, column_class, thread);
    } else {
      inside = count_pairs(params, tile, s, thread);
    }
    if (__any_sync(kWholeWarp, inside > 0)) keep(params, tile, s, thread, inside);
  }

  __device__ static void end(const Params&, Shared&, int) {}

 private:
  __device__ static int32_t last_of(int32_t first, int32_t count) {
    return first + kTile < count ? first + kTile - 1 : count - 1;
  }

  __device__ static void give_away(const Params& params, Shared& shared, const Tile& tile, int32_t row_class,
                                   int32_t column_class, int thread) {
    for (int k = thread; k < kTile; k += Loop::kEpilogueThreads) {
      const uint32_t row = shared.rows[k], column = shared.columns[k];
      shared.rows[k] = shared.columns[k] = 0;
      if (row) atomicAdd(&params.above[(tile.i0 + k) * params.num_classes + column_class], row);
      if (column) atomicAdd(&params.above[(tile.j0 + k) * params.num_classes + row_class], column);
    }
  }

  __device__ static uint32_t count_pairs(const Params& params, const Tile& tile,
                                         const float (&s)[Loop::kRows][Loop::kColumns], int thread) {
    uint32_t inside = 0;
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c) {
        inside += s[r][c] >= params.lo && s[r][c] <= params.hi;
        if (!(s[r][c] > params.hi)) continue;
        const int32_t i = tile.i0 + Loop::row(thread, r), j = tile.j0 + Loop::column(thread, c);
        atomicAdd(&params.above[i * params.num_classes + params.class_of[j]], 1u);
        atomicAdd(&params.above[j * params.num_classes + params.class_of[i]], 1u);
      }
    return inside;
  }

  __device__ static void keep(const Params& params, const Tile& tile, const float (&s)[Loop::kRows][Loop::kColumns],
                              int thread, uint32_t inside) {
    Counter position = append_position(params.length, inside);
    if (inside == 0) return;
#pragma unroll
    for (int r = 0; r < Loop::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Loop::kColumns; ++c)
        if (s[r][c] >= params.lo && s[r][c] <= params.hi) {
          if (position < params.capacity)
            params.list[position] = {tile.i0 + Loop::row(thread, r), tile.j0 + Loop::column(thread, c), 0.0};
          ++position;
        }
  }
};

// The listed pairs, decided: above[i, class of j] and above[j, class of i] where S > cutoff.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    list_classes_kernel(StoredRows<T> x, const Entry* list, int64_t n, double cutoff, const int32_t* class_of,
                        int64_t num_classes, uint32_t* above) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowGroups;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRowGroups; first < n; first += step) {
    const int64_t t = first + threadIdx.x / kLanes;
    const bool there = t < n;
    const Entry entry = there ? list[t] : Entry{0, 0, 0.0};
    const double s = pair_similarity(x, entry.row, entry.column, there);
    if (!there || threadIdx.x % kLanes != 0 || !(s > cutoff)) continue;
    atomicAdd(&above[entry.row * num_classes + class_of[entry.column]], 1u);
    atomicAdd(&above[entry.column * num_classes + class_of[entry.row]], 1u);
  }
}

}  // namespace proto_engine
