// How wgmma_kernel is launched: its descriptions of the rows, its shared memory, its grid, and what it refuses.
#pragma once

#include <algorithm>

#include "tensor_map.h"
#include "wgmma_loop.cuh"

namespace proto_engine {

// The rows of an operand, `rows` in all classes together, as the copy engine sees them.
//
// Unsplit rows are `dim` wide, whatever their stride: zeros beyond. Split rows are both halves wide, so that a
// slice past the end of the first half would not be zeros: their `dim` must be a multiple of 64, which the
// host reaches by padding both halves with zeros.
inline cudaError_t make_operand_map(const Operand& x, int64_t rows, CUtensorMap* map) {
  if (x.segments != 1 && x.dim % kBoxColumns != 0) return cudaErrorInvalidValue;
  return make_tensor_map(x.data, rows, x.segments == 1 ? x.dim : int64_t{2} * x.dim, x.stride, map);
}

// One pass over the tiles of `work`. num_rows and num_columns: how many rows there are behind each operand,
// in all classes together.
//
// cudaErrorNoKernelImageForDevice: not a GPU of compute capability 9.0, or no code for sm_90a was compiled.
// cudaErrorInvalidValue: operands that do not fit each other or the copy engine (see make_tensor_map).
template <class T, template <class> class Epilogue>
cudaError_t launch_wgmma(const Work& work, const Operand& rows, int64_t num_rows, const Operand& columns,
                         int64_t num_columns, const typename Epilogue<WgmmaLoop<T>>::Params& params,
                         cudaStream_t stream) {
  using Loop = WgmmaLoop<T>;
  static_assert(Loop::kSlice == kBoxColumns && kTile == kBoxRows && sizeof(T) == 2, "a box is a slice of a tile");
  constexpr size_t kShared = sizeof(TileShared<Loop, Epilogue<Loop>>);
  static_assert(kShared <= 227 * 1024, "what a block may have");
  if (work.last <= work.first) return cudaSuccess;
  if (rows.dim != columns.dim || rows.segments != columns.segments) return cudaErrorInvalidValue;

  int device = 0, major = 0, minor = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (!error) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (!error) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error) return error;
  if (major != 9 || minor != 0) return cudaErrorNoKernelImageForDevice;

  // The kernel for other targets is an empty one that traps: it is told from the real one by its registers.
  const auto kernel = wgmma_kernel<T, Epilogue<Loop>>;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (!error && attributes.numRegs != Loop::kFirstRegisters) error = cudaErrorNoKernelImageForDevice;
  if (!error) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);

  CUtensorMap rows_map, columns_map;
  if (!error) error = make_operand_map(rows, num_rows, &rows_map);
  if (!error) error = make_operand_map(columns, num_columns, &columns_map);
  if (error) return error;

  const int64_t blocks = std::min<int64_t>(multiprocessors, work.last - work.first);
  kernel<<<static_cast<unsigned>(blocks), Loop::kThreads, kShared, stream>>>(work, rows_map, columns_map, rows,
                                                                             columns, params);
  return cudaGetLastError();
}

}  // namespace proto_engine
