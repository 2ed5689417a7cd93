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
      work(StoredRows<Float16>{static_cast<const Float16*>(r.data), r.stride, r.dim, x.squares});
      break;
    case DType::kBFloat16:
      work(StoredRows<BFloat16>{static_cast<const BFloat16*>(r.data), r.stride, r.dim, x.squares});
      break;
    case DType::kFloat32:
      work(StoredRows<float>{static_cast<const float*>(r.data), r.stride, r.dim, x.squares});
      break;
    case DType::kFloat64:
      work(StoredRows<double>{static_cast<const double*>(r.data), r.stride, r.dim, x.squares});
      break;
  }
  return cudaGetLastError();
}

// Kernels walk over their work in steps of the grid: more blocks than this would only queue.
constexpr int64_t kMostBlocks = 2048;

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = ceil_div(items, per_block);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

// Grid (blocks, classes) for lists whose lengths only the device knows.
inline dim3 class_grid(int64_t num_classes) {
  return dim3(blocks_for(kMostBlocks, num_classes), static_cast<unsigned>(num_classes));
}

}  // namespace proto_engine
