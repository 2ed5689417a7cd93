// A block's part of the columns in score_cluster.cuh: what lies in its shared memory, how rows come in, and how it
// waits for the other blocks of its cluster.
#pragma once

#include "hopper.cuh"
#include "score_row.cuh"
#include "tensor_map.h"

namespace proto_engine {

constexpr int kTeamThreads = 256;  // of each of two teams
constexpr int kPartThreads = 2 * kTeamThreads;
constexpr int kMostParts = 8;  // a cluster of more blocks is not portable
constexpr int kPartClasses = 16;

__host__ __device__ inline int parts_of(int64_t dim) { return static_cast<int>(ceil_div(dim, kBlockColumns)); }

template <class T>
struct PartShared {
  static constexpr int kTiles = 5;       // at work in the stations, and two on their way
  static constexpr int kMostOwned = 70;  // rows that a block owns times the number of parts, at the most
  static constexpr int kBoxes = kBlockColumns / kBoxColumns, kBox = kScoreRows * kBoxColumns;
  static constexpr int kTile = kBoxes * kBox;

  alignas(1024) T rows[kTiles][kTile];                      // as the copy engine puts them there, see `place`
  alignas(128) double exact[kPartClasses * kBlockColumns];  // see `chunk_place`
  // What comes from the blocks of the cluster, for the rows that this one owns.
  float sums[2][2 * kMostOwned * kPartClasses];  // [2 parts, owned, 16]: s32 of half a part
  float squares[2][2 * kMostOwned];              // [2 parts, owned]
  double pinned[2][kMostOwned * 3];              // [parts, owned, 3]: q and two products
  uint32_t candidates[4][kScoreRows];            // of all rows: a bit for every class
  uint64_t rows_there[kTiles], sums_there[2], pinned_there[2], candidates_there[4];  // barriers

  // Where a piece of eight elements is, of 32 in a row: its box of 64 columns, and in there its place by the swizzle.
  __device__ static int place(int row, int piece) {
    return piece / 8 * kBox + row * kBoxColumns + (piece % 8 ^ row % 8) * 8;
  }
};

// What both teams know.
template <class T>
struct Part {
  using Shared = PartShared<T>;

  const ScoreParams& params;
  Shared& shared;
  const int thread;  // of the team
  const int parts, part;
  const int owned;  // rows of a tile, of every block but the last, which may have fewer
  const int owned_here;
  const int64_t first_column;

  __device__ Part(const ScoreParams& given, Shared& memory)
      : params(given),
        shared(memory),
        thread(threadIdx.x % kTeamThreads),
        parts(parts_of(given.dim)),
        part(static_cast<int>(cluster_rank())),
        owned((kScoreRows + parts - 1) / parts),
        owned_here(kScoreRows - part * owned < owned ? kScoreRows - part * owned : owned),
        first_column(static_cast<int64_t>(part) * kBlockColumns) {}

  // By one thread of the block.
  __device__ static void prepare(Shared& shared) {
    for (uint64_t& barrier : shared.rows_there) mbarrier_init(&barrier, 1);
    for (uint64_t& barrier : shared.sums_there) mbarrier_init(&barrier, 1);
    for (uint64_t& barrier : shared.pinned_there) mbarrier_init(&barrier, 1);
    for (uint64_t& barrier : shared.candidates_there) mbarrier_init(&barrier, 1);
    fence_mbarrier_init();
  }

  // This part of a tile into the ring, as tile t of this cluster; zeros where there are no rows or columns. By the
  // thread that has called `prepare`.
  __device__ static void fetch(Shared& shared, const CUtensorMap& map, int t, int64_t tile) {
    const int32_t column = static_cast<int32_t>(cluster_rank()) * kBlockColumns;
    uint64_t* there = &shared.rows_there[t % Shared::kTiles];
    mbarrier_arrive_expect_tx(there, Shared::kTile * sizeof(T));
    for (int box = 0; box < Shared::kBoxes; ++box)
      tma_load_2d(shared.rows[t % Shared::kTiles] + box * Shared::kBox, &map, there, column + box * kBoxColumns,
                  static_cast<int32_t>(tile * kScoreRows));
  }

  // Until the blocks have sent what belongs to the `use`-th filling of a buffer; by every thread that reads it. One
  // thread of the block, the only one to arrive, says how many bytes that is.
  __device__ void await(uint64_t* barrier, int use, int bytes) const {
    if (thread == 0) mbarrier_arrive_expect_tx(barrier, static_cast<uint32_t>(bytes));
    await(barrier, use);
  }
  __device__ static void await(uint64_t* barrier, int use) {
    while (!mbarrier_try_wait(barrier, use % 2)) {
    }
  }
};

}  // namespace proto_engine
