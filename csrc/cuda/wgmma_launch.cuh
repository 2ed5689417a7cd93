// How wgmma_kernel is launched: its descriptions of the rows, its shared memory, its grid, and what it refuses.
#pragma once

#include "launch.cuh"
#include "tensor_map.h"
#include "wgmma_loop.cuh"

namespace proto_engine {

// The rows of an operand, of all classes together, as the copy engine sees them.
//
// Unsplit rows are `dim` wide, whatever their stride: zeros beyond. Split rows are both halves wide, so that a
// slice past the end of the first half would not be zeros: their `dim` must be a multiple of 64, which the
// host reaches by padding both halves with zeros.
inline cudaError_t make_operand_map(const TileRows& rows, CUtensorMap* map) {
  const Operand& x = rows.operand;
  if (x.segments != 1 && x.dim % kBoxColumns != 0) return cudaErrorInvalidValue;
  return make_tensor_map(x.data, rows.count, x.segments == 1 ? x.dim : int64_t{2} * x.dim, x.stride, map);
}

// Whether the current device can run the kernel. For other targets it is compiled as an empty one that traps;
// the real one is known by its registers.
template <class Kernel>
cudaError_t check_hopper(Kernel kernel, int device, int registers) {
#if defined(PROTO_ENGINE_CUDA_HOST)
  (void)kernel, (void)device, (void)registers;
#else
  int major = 0, minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) return error;
  if (major != 9 || minor != 0) return cudaErrorNoKernelImageForDevice;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  if (attributes.numRegs != registers) return cudaErrorNoKernelImageForDevice;
#endif
  return cudaSuccess;
}

// One pass over the tiles, elements of type T, one block a multiprocessor.
//
// cudaErrorNoKernelImageForDevice: not a GPU of compute capability 9.0, or no code for sm_90a was compiled.
// cudaErrorInvalidValue: operands that do not fit each other or the copy engine (see make_tensor_map).
template <class T, template <class> class Epilogue>
cudaError_t launch_wgmma(const TilePass& pass, const typename Epilogue<WgmmaLoop<T>>::Params& params,
                         cudaStream_t stream) {
  using Loop = WgmmaLoop<T>;
  static_assert(Loop::kSlice == kBoxColumns && kTile == kBoxRows && sizeof(T) == 2, "a box is a slice of a tile");
  constexpr size_t kShared = sizeof(WgmmaShared<Loop, Epilogue<Loop>>);
  static_assert(kShared <= 227 * 1024, "what a block may have");
  const int64_t tiles = pass.work.last - pass.work.first;
  if (tiles <= 0) return cudaSuccess;
  const Operand &rows = pass.rows.operand, &columns = pass.columns.operand;
  if (rows.dim != columns.dim || rows.segments != columns.segments) return cudaErrorInvalidValue;

  const auto kernel = wgmma_kernel<T, Epilogue<Loop>>;
  int device = 0, processors = 0;
  CUtensorMap rows_map, columns_map;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = check_hopper(kernel, device, Loop::kFirstRegisters);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kShared));
  if (error == cudaSuccess) error = make_operand_map(pass.rows, &rows_map);
  if (error == cudaSuccess) error = make_operand_map(pass.columns, &columns_map);
  if (error != cudaSuccess) return error;
  const unsigned blocks = static_cast<unsigned>(tiles < processors ? tiles : processors);
  return start(kernel, blocks, Loop::kThreads, kShared, stream, pass.work, rows_map, columns_map, rows, columns,
               params);
}

}  // namespace proto_engine
