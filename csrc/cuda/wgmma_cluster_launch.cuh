// When wgmma_cluster_kernel is launched, and how.
#pragma once

#include "epilogue.cuh"
#include "wgmma_cluster.cuh"
#include "wgmma_launch.cuh"

namespace proto_engine {

// The passes over whole triangles, which clusters are for. The others go over samples of tiles or over rectangles.
template <template <class> class Epilogue>
constexpr bool kHasClusters = false;
template <>
constexpr bool kHasClusters<CountEpilogue> = true;
template <>
constexpr bool kHasClusters<StoreEpilogue> = true;

// Whether clusters can do the work. The single tiles of a sample make no squares; parts of a triangle that begin
// further on would mean looking at every square before, where those that only end early cost a few squares more than
// they have. The last rows are so that no half of a tile begins beyond what the copy engine can count.
//
// From what number of tiles on squares are faster is for a GPU to say; so far all but the least are given to them.
inline bool is_for_clusters(const TilePass& pass) {
  const Work& work = pass.work;
  return work.shape == kTriangle && work.first == 0 && work.last > kSquareBlocks &&
         pass.rows.count <= INT32_MAX - kSquare * kTile;
}

// launch_wgmma with clusters where they can do the work; the same results.
template <class T, template <class> class Epilogue>
cudaError_t launch_wgmma_clusters(const TilePass& pass, const typename Epilogue<WgmmaLoop<T>>::Params& params,
                                  cudaStream_t stream) {
  if constexpr (kHasClusters<Epilogue>) {
    if (is_for_clusters(pass)) {
      using Loop = WgmmaLoop<T>;
      constexpr size_t kShared = sizeof(WgmmaShared<Loop, Epilogue<Loop>>);
      const auto kernel = wgmma_cluster_kernel<T, Epilogue<Loop>>;
      int device = 0;
      cudaError_t error = cudaGetDevice(&device);
      if (error != cudaSuccess) return error;
      OperandMaps maps;
      error = prepare_wgmma<Loop>(kernel, pass, device, WgmmaCluster<T>::kBoxRows, kShared, &maps);
      if (error != cudaSuccess) return error;
      return start_clusters(kernel, kSquareBlocks, pass.work.last, Loop::kThreads, kShared, stream, pass.work,
                            maps.rows, maps.columns, pass.rows.operand, pass.columns.operand, params);
    }
  }
  return launch_wgmma<T, Epilogue>(pass, params, stream);
}

}  // namespace proto_engine
