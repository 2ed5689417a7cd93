// The tile loop for Hopper with four blocks in a cluster, which bring their operands together.
//
// A tile of 128 x 128 needs 64 bytes a clock from the L2 cache to keep its tensor cores busy, and the cache has
// about half of that for every multiprocessor. Larger tiles would need less, but a thread has no registers for
// them: sums are kept twice, in the tensor cores' chunk and in float32. So four blocks work on a square of 2 x 2
// tiles at the same time: those in a row of it multiply the same rows, those in a column the same columns.
//
//              columns J      columns J + 1
//     rows I   block 0        block 1          block 0 brings the upper half of rows I to 0 and 1,
//     I + 1    block 2        block 3          and of columns J to 0 and 2; and so on: half of each operand.
//
// Each block has the ring of stages of the loop for single blocks. Into a stage of a block come its own two
// copies, its neighbor's in the row and its neighbor's in the column; its barrier `full` waits for the bytes of all
// four. The copy engine writes into the same stage of the neighbor as of the own block, so a block may send when
// the stage is empty in all three: consumers give a stage back to their own block and both neighbors, which thus
// each count 3 * 8 warps. All blocks of a cluster go through the same squares and slices. A block may run ahead of
// the other ones by no more than the ring; bytes that land before a block has said how many it expects are counted
// all the same, and cannot be those of a later use, for which the block's own consumers would have had to be done.
//
// A square on the diagonal has a tile below it, and one at the border of a class may reach beyond: such tiles are
// multiplied, since the neighbors need the copies, and forgotten. No block may leave while another may still write
// to its memory or arrive at its barriers, hence the barrier of the cluster at the end.
#pragma once

#include "wgmma_loop.cuh"

namespace proto_engine {

template <class T>
struct WgmmaCluster {
  using Loop = WgmmaLoop<T>;
  using Shared = typename Loop::Shared;
  using Ring = typename Loop::Ring;
  static constexpr int kReceivers = 3;        // of a block's copies: itself and its two neighbors
  static constexpr int kBoxRows = kTile / 2;  // whole periods of the swizzle: halves lie one after the other

  // By one thread.
  __device__ static void prepare(Shared& shared) { Loop::prepare(shared, kReceivers * Loop::kConsumerWarps); }

  // By one thread of the producer: this block's share of both operands, for a tile of each block.
  __device__ static void bring(const CUtensorMap& rows_map, const CUtensorMap& columns_map, const Operand& rows,
                               const Operand& columns, const Tile& tile, Shared& shared, Ring& ring) {
    const uint32_t row = cluster_rank() / kSquare, column = cluster_rank() % kSquare;
    const uint16_t in_row = static_cast<uint16_t>(3u << kSquare * row);  // blocks that need the same rows
    const uint16_t in_column = static_cast<uint16_t>((1u | 1u << kSquare) << column);  // and the same columns
    const int32_t i = static_cast<int32_t>(tile.row_base + tile.i0) + static_cast<int32_t>(column) * kBoxRows;
    const int32_t j = static_cast<int32_t>(tile.column_base + tile.j0) + static_cast<int32_t>(row) * kBoxRows;
    constexpr uint32_t kHalf = kBoxRows * Loop::kSlice;
    for (int segment = 0; segment < rows.segments; ++segment)
      for (int32_t k0 = 0; k0 < rows.dim; k0 += Loop::kSlice) {
        uint64_t* full = &shared.full[ring.stage];
        wait_empty(shared, ring);
        if (segment == 0 && k0 == 0) shared.tile[ring.stage] = tile;
        mbarrier_arrive_expect_tx(full, Loop::kStageBytes);
        tma_load_2d_multicast(shared.a[ring.stage] + column * kHalf, &rows_map, full, row_offset(rows, segment) + k0,
                              i, in_row);
        tma_load_2d_multicast(shared.b[ring.stage] + row * kHalf, &columns_map, full,
                              column_offset(columns, segment) + k0, j, in_column);
        ring.advance();
      }
  }

  // By one thread of the producer: there are no more tiles. A stage without bytes says so.
  __device__ static void finish(const Tile& none, Shared& shared, const Ring& ring) {
    wait_empty(shared, ring);
    shared.tile[ring.stage] = none;
    mbarrier_arrive(&shared.full[ring.stage]);
  }

  // Stages go back to whoever copies into them: lanes 0, 1 and 2 tell this block, the one beside it in the row and
  // the one in the column.
  __device__ static void give_back(Shared& shared, Ring first, const Ring& next, uint32_t rank) {
    __syncwarp();
    const uint32_t lane = threadIdx.x % 32;
    if (lane < kReceivers)
      for (; first.stage != next.stage; first.advance()) mbarrier_arrive_at(&shared.empty[first.stage], rank ^ lane);
  }

 private:
  __device__ static void wait_empty(Shared& shared, const Ring& ring) {
    while (!mbarrier_try_wait(&shared.empty[ring.stage], ring.parity ^ 1)) {
    }
  }
};

// Grid: clusters of kSquareBlocks blocks; cluster b takes squares b, b + clusters, ... of the work, a triangle.
template <class T, class Epilogue>
__global__ void __launch_bounds__(WgmmaLoop<T>::kThreads, 1)
    wgmma_cluster_kernel(Work work, const __grid_constant__ CUtensorMap rows_map,
                         const __grid_constant__ CUtensorMap columns_map, Operand rows, Operand columns,
                         typename Epilogue::Params params) {
#if PROTO_ENGINE_HOPPER
  using Loop = WgmmaLoop<T>;
  using Cluster = WgmmaCluster<T>;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<WgmmaShared<Loop, Epilogue>*>(memory);
  if (threadIdx.x == 0) Cluster::prepare(shared.loop);
  cluster_sync();

  typename Loop::Ring ring;
  if (threadIdx.x >= Loop::kConsumerThreads) {
    set_registers_down<Loop::kProducerRegisters>();
    if (threadIdx.x < Loop::kConsumerThreads + 32 && elect_one()) {
      SquarePosition at = {0, blockIdx.x / kSquareBlocks};
      for (;; at.square += gridDim.x / kSquareBlocks) {
        const Tile tile = square_tile_at(work, at, static_cast<int>(cluster_rank()));
        if (tile.c < 0) {
          Cluster::finish(tile, shared.loop, ring);
          break;
        }
        Cluster::bring(rows_map, columns_map, rows, columns, tile, shared.loop, ring);
      }
    }
  } else {
    set_registers_up<Loop::kConsumerRegisters>();
    const int thread = threadIdx.x % Loop::kEpilogueThreads;
    const uint32_t rank = cluster_rank();
    const auto give_back = [rank](typename Loop::Shared& from, const typename Loop::Ring& first,
                                  const typename Loop::Ring& next) { Cluster::give_back(from, first, next, rank); };
    auto& own = shared.epilogue[Loop::consumer()];
    Epilogue::begin(params, own, thread);
    for (;;) {
      const Tile tile = Loop::next_tile(shared.loop, ring);
      if (tile.c < 0) break;
      float s[Loop::kRows][Loop::kColumns];
      Loop::product(rows, shared.loop, ring, s, give_back);
      if (tile.rows == 0) continue;
      scale_tile<Loop>(rows, columns, tile, s, thread);
      Epilogue::tile(params, own, tile, s, thread);
    }
    Epilogue::end(params, own, thread);
  }
  cluster_sync();
#else
  asm volatile("trap;");  // compiled for a GPU without these instructions; never launched there
#endif
}

}  // namespace proto_engine
