// How wgmma_kernel is launched: its descriptions of the rows, its shared memory, its grid, and what it refuses.
#pragma once

#include "hopper_launch.cuh"
#include "tensor_map.h"
#include "wgmma_loop.cuh"

namespace proto_engine {

// The rows of an operand, of all classes together, as the copy engine sees them.
//
// Unsplit rows are `dim` wide, whatever their stride: zeros beyond. Split rows are both halves wide, so that a
// slice past the end of the first half would not be zeros: their `dim` must be a multiple of 64, which the
// host reaches by padding both halves with zeros.
inline cudaError_t make_operand_map(const TileRows& rows, int box_rows, CUtensorMap* map) {
  const Operand& x = rows.operand;
  if (x.segments != 1 && x.dim % kBoxColumns != 0) return cudaErrorInvalidValue;
  const int64_t width = x.segments == 1 ? x.dim : int64_t{2} * x.dim;
  return make_tensor_map(x.data, rows.count, width, x.stride, box_rows, map);
}

struct OperandMaps {
  CUtensorMap rows, columns;
};

// Everything before the launch of a kernel of the loop, on the current device; copies bring box_rows rows.
//
// cudaErrorNoKernelImageForDevice: not a GPU of compute capability 9.0, or no code for sm_90a was compiled.
// cudaErrorInvalidValue: operands that do not fit each other or the copy engine (see make_tensor_map).
template <class Loop, class Kernel>
cudaError_t prepare_wgmma(Kernel kernel, const TilePass& pass, int device, int box_rows, size_t shared,
                          OperandMaps* maps) {
  const Operand &rows = pass.rows.operand, &columns = pass.columns.operand;
  if (rows.dim != columns.dim || rows.segments != columns.segments) return cudaErrorInvalidValue;
  cudaError_t error = check_hopper(kernel, device, Loop::kFirstRegisters);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (error == cudaSuccess) error = make_operand_map(pass.rows, box_rows, &maps->rows);
  if (error == cudaSuccess) error = make_operand_map(pass.columns, box_rows, &maps->columns);
  return error;
}

// One pass over the tiles, elements of type T, one block a multiprocessor. Errors are those of prepare_wgmma.
template <class T, template <class> class Epilogue>
cudaError_t launch_wgmma(const TilePass& pass, const typename Epilogue<WgmmaLoop<T>>::Params& params,
                         cudaStream_t stream) {
  using Loop = WgmmaLoop<T>;
  static_assert(Loop::kSlice == kBoxColumns && sizeof(T) == 2, "a box is a slice of a tile");
  constexpr size_t kShared = sizeof(WgmmaShared<Loop, Epilogue<Loop>>);
  static_assert(kShared <= 227 * 1024, "what a block may have");
  const int64_t tiles = pass.work.last - pass.work.first;
  if (tiles <= 0) return cudaSuccess;
  const auto kernel = wgmma_kernel<T, Epilogue<Loop>>;
  int device = 0, processors = 0;
  OperandMaps maps;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = prepare_wgmma<Loop>(kernel, pass, device, kTile, kShared, &maps);
  if (error != cudaSuccess) return error;
  const unsigned blocks = static_cast<unsigned>(tiles < processors ? tiles : processors);
  return start(kernel, blocks, Loop::kThreads, kShared, stream, pass.work, maps.rows, maps.columns, pass.rows.operand,
               pass.columns.operand, params);
}

}  // namespace proto_engine
