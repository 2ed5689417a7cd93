// Shared by the launch functions: element types at run time, and grids.
#pragma once

#include <cuda_runtime.h>

#include "proto_engine_cuda.h"
#include "rows.cuh"

namespace proto_engine {

// work(StoredRows<T>) for the element type of the rows.
template <class F>
cudaError_t with_rows(const DeviceRows& x, const F& work) {
  const Rows& r = x.rows;
  switch (r.dtype) {
    case DType::kFloat16:
      return work(StoredRows<Float16>{static_cast<const Float16*>(r.data), r.stride, r.dim, x.squares});
    case DType::kBFloat16:
      return work(StoredRows<BFloat16>{static_cast<const BFloat16*>(r.data), r.stride, r.dim, x.squares});
    case DType::kFloat32:
      return work(StoredRows<float>{static_cast<const float*>(r.data), r.stride, r.dim, x.squares});
    case DType::kFloat64:
      return work(StoredRows<double>{static_cast<const double*>(r.data), r.stride, r.dim, x.squares});
  }
  return cudaErrorInvalidValue;
}

// Kernels walk over their work in steps of the grid: more blocks than this would only queue.
#if defined(PROTO_ENGINE_CUDA_HOST)  // a block takes long there, and three show what several do
constexpr int64_t kMostBlocks = 3;
#else
constexpr int64_t kMostBlocks = 2048;
#endif

// One launch; arguments become what the kernel's parameters are.
template <class... Parameters, class... Arguments>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared, cudaStream_t stream,
                  const Arguments&... arguments) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  cuda_host::launch(grid, dim3(threads), shared, stream, [&] { kernel(arguments...); });
  return cudaSuccess;
#else
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
#endif
}

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = ceil_div(items, per_block);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

// Grid (blocks, classes) for lists whose lengths only the device knows.
inline dim3 class_grid(int64_t num_classes) {
  return dim3(blocks_for(kMostBlocks, num_classes), static_cast<unsigned>(num_classes));
}

}  // namespace proto_engine
