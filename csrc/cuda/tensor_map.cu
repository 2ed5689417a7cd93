#include <cudaTypedefs.h>

#include "tensor_map.h"

namespace proto_engine {
namespace {

constexpr int64_t kElementBytes = 2;

// cuTensorMapEncodeTiled of the driver that is installed; a library that is linked with it would not load
// where there is none.
cudaError_t find_encoder(PFN_cuTensorMapEncodeTiled_v12000* encode) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess || function == nullptr) return cudaErrorNotSupported;
  *encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  return cudaSuccess;
}

}  // namespace

cudaError_t make_tensor_map(const void* data, int64_t rows, int64_t width, int64_t stride, int box_rows,
                            CUtensorMap* map) {
  // The limits of cuTensorMapEncodeTiled, and coordinates are int32: a box may begin in the last row.
  if (rows < 1 || rows > INT32_MAX || width < 1 || width > INT32_MAX || stride < width || stride > INT32_MAX ||
      stride * kElementBytes % 16 != 0 || reinterpret_cast<uintptr_t>(data) % 16 != 0)
    return cudaErrorInvalidValue;

  PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
  const cudaError_t error = find_encoder(&encode);
  if (error != cudaSuccess) return error;

  const cuuint64_t size[2] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows)};  // innermost first
  const cuuint64_t row_bytes[1] = {static_cast<cuuint64_t>(stride * kElementBytes)};
  const cuuint32_t box[2] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t every[2] = {1, 1};
  // The bits are copied as they are, so that one type serves float16 and bfloat16. OOB_FILL_NONE means zeros.
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(data), size, row_bytes,
                                 box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace proto_engine
