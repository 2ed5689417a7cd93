// Launches of the passes over the tiles: which loop, how many blocks.
#pragma once

#include "launch.cuh"
#include "mma_loop.cuh"
#include "simt_loop.cuh"
#include "tile_kernel.cuh"
#include "wgmma_cluster_launch.cuh"

namespace proto_engine {

// As many blocks as run at the same time, or one a tile where there are fewer tiles.
template <class Kernel>
cudaError_t persistent_grid(Kernel kernel, int threads, size_t shared, int64_t tiles, unsigned* blocks) {
  int device = 0, processors = 0, per_processor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, threads, shared);
  if (error != cudaSuccess) return error;
  if (per_processor == 0) return cudaErrorInvalidConfiguration;
  const int64_t most = static_cast<int64_t>(processors) * per_processor;
  *blocks = static_cast<unsigned>(tiles < most ? tiles : most);
  return cudaSuccess;
}

template <class Loop, class Epilogue>
cudaError_t launch_tiles(const TilePass& pass, const typename Epilogue::Params& params, cudaStream_t stream) {
  constexpr size_t kShared = sizeof(TileShared<Loop, Epilogue>);
  unsigned blocks = 0;
  const auto kernel = tile_kernel<Loop, Epilogue>;
  const cudaError_t error =
      persistent_grid(kernel, Loop::kThreads, kShared, pass.work.last - pass.work.first, &blocks);
  if (error != cudaSuccess) return error;
  return start(kernel, blocks, Loop::kThreads, kShared, stream, pass.work, pass.rows.operand, pass.columns.operand,
               params);
}

// The pass with the loop it asks for; `arguments` are the members of the epilogue's parameters.
template <template <class> class Epilogue, class... Arguments>
cudaError_t launch_pass(const TilePass& pass, cudaStream_t stream, const Arguments&... arguments) {
  if (pass.work.first >= pass.work.last) return cudaSuccess;
  const DType dtype = pass.rows.dtype;
  const auto launch = [&](auto loop) {
    using Loop = decltype(loop);
    return launch_tiles<Loop, Epilogue<Loop>>(pass, {arguments...}, stream);
  };
  if (pass.loop == TileLoop::kSimt && dtype == DType::kFloat32) return launch(SimtLoop<float>{});
  if (pass.loop == TileLoop::kMma && dtype == DType::kFloat16) return launch(MmaLoop<Float16>{});
  if (pass.loop == TileLoop::kMma && dtype == DType::kBFloat16) return launch(MmaLoop<BFloat16>{});
  if (pass.loop == TileLoop::kWgmma && dtype == DType::kFloat16)
    return launch_wgmma<Float16, Epilogue>(pass, {arguments...}, stream);
  if (pass.loop == TileLoop::kWgmma && dtype == DType::kBFloat16)
    return launch_wgmma<BFloat16, Epilogue>(pass, {arguments...}, stream);
  if (pass.loop == TileLoop::kWgmmaCluster && dtype == DType::kFloat16)
    return launch_wgmma_clusters<Float16, Epilogue>(pass, {arguments...}, stream);
  if (pass.loop == TileLoop::kWgmmaCluster && dtype == DType::kBFloat16)
    return launch_wgmma_clusters<BFloat16, Epilogue>(pass, {arguments...}, stream);
  return cudaErrorInvalidValue;
}

}  // namespace proto_engine
