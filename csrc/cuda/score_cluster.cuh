// Scores of 16-bit rows on Hopper: every row is read once, and what it is multiplied with is never read again.
//
// Two to eight blocks make a cluster, and each has a part of 256 columns: of the folded vectors (D <= 2048, at most
// 16 classes), which stay in its shared memory and registers as long as it lives, and of every row that the cluster
// looks at. A part is a block of the pinned sums as well, so that parts are summed apart. The cluster takes tiles of
// 64 rows through four stations, and a block owns 64 / parts rows of each tile; in each round every station has
// another tile, and two teams of 256 threads share the stations:
//
//   products   tile i       s32 of the part with all classes, on tensor cores; to the blocks that own the rows
//   choose     tile i - 1   the owner adds the parts up and tells all blocks which classes could be first or second
//   pin        tile i - 2   the pinned sums of the part for q and two classes; to the owner. A team of its own
//   finish     tile i - 3   the owner adds the parts up in order; label, best and second
//
// while tiles i + 1 and i + 2 are on their way from memory (bulk copies). What blocks tell each other is stored right
// into the other's shared memory and counted by a barrier there (st.async): no block ever waits for all of the
// cluster, and none waits for what is sent in the same round. Everything that is sent is waited for, so that no block
// leaves while another stores to its memory. Nor does anybody have to say that a buffer is free:
//
//   sums[t % 2]        products of t + 2 wait for the candidates of t, which their owner found in these sums
//   candidates[t % 4]  choose of t + 4 waits for sums of t + 4 of all blocks; in each of them both teams have met at
//                      the end of round t + 3, after pin and finish of t
//   pinned[t % 2]      pin of t + 2 waits for the candidates of t + 2, and every warp of the owner that reads rows in
//                      finish of t sends candidates of t + 2 afterwards (8 threads a row there, 16 in choose)
//
// Work of a round and block, b = 2 bytes an element, eight parts. DRAM and L2: 64 * 256 b = 32 KB, nothing else.
// Shared memory, in wavefronts of 128 bytes: 256 to fill, 256 for the tensor cores, 272 + 2,176 for `pin` (8 bytes of
// a vector for 2 of a row: this is what limits it), some 500 for the sums; about 3,450. Instructions of a scheduler:
// about 2,300, of which two warps of `pin` have 1,350. float64: 5 * 64 * 256 operations, 1,280 cycles. Nothing of
// this has been measured. If all of shared memory's time could be used, 132 multiprocessors at 1.75 GHz would
// read 2.2 TB/s; single blocks (score.cuh) have 4,200 wavefronts and 112 KB from the L2 cache for the same rows.
#pragma once

#include "score_part_pin.cuh"
#include "score_part_sums.cuh"

namespace proto_engine {

// Grid: clusters of parts_of(dim) blocks; cluster b takes tiles b, b + clusters, ...   map: the rows, 64 at a time
template <class T>
__global__ void __launch_bounds__(kPartThreads, 1)
    score_cluster_kernel(ScoreParams params, const __grid_constant__ CUtensorMap map) {
#if PROTO_ENGINE_HOPPER
  using Shared = PartShared<T>;
  PROTO_ENGINE_DYNAMIC_SHARED(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int parts = parts_of(params.dim);
  const int64_t cluster = blockIdx.x / parts, clusters = gridDim.x / parts;
  const int count = static_cast<int>(ceil_div(ceil_div(params.n, kScoreRows) - cluster, clusters));  // tiles
  const auto has = [count](int t) { return t >= 0 && t < count; };
  const auto tile = [=](int t) { return cluster + t * clusters; };
  const auto fetch = [&](int t) {
    if (threadIdx.x == 0 && has(t)) Part<T>::fetch(shared, map, t, tile(t));
  };

  if (threadIdx.x == 0) Part<T>::prepare(shared);
  fetch(0);
  fetch(1);
  if (threadIdx.x < kTeamThreads) {
    const SumsTeam<T> team(params, shared);
    cluster_sync();  // all blocks have begun, and their vectors are there
    for (int i = 0; i < count + 3; ++i) {
      fetch(i + 2);
      if (has(i - 2)) team.await(&shared.candidates_there[(i - 2) % 4], (i - 2) / 4);
      if (has(i)) team.products(i);
      if (has(i - 3)) team.finish(i - 3, tile(i - 3));
      if (has(i - 1)) team.choose(i - 1);
      named_barrier_sync(1, kPartThreads);
    }
  } else {
    const PinTeam<T> team(params, shared);
    cluster_sync();
    for (int i = 0; i < count + 3; ++i) {
      if (has(i - 2)) team.pin(i - 2);
      named_barrier_sync(1, kPartThreads);  // tile i - 2 has been used
    }
  }
#else
  asm volatile("trap;");  // compiled for a GPU without these instructions; never launched there
#endif
}

}  // namespace proto_engine
