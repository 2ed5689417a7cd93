// The part of the driver's header that describes matrices to Hopper's copy engine. The encoder holds the caller to
// what the manual of the driver demands of the arguments, and writes them down for the engine's twin.
#pragma once

#include <cstdint>

using cuuint32_t = uint32_t;
using cuuint64_t = uint64_t;

enum CUresult { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 };
enum CUtensorMapDataType { CU_TENSOR_MAP_DATA_TYPE_UINT8 = 0, CU_TENSOR_MAP_DATA_TYPE_UINT16 = 1 };
enum CUtensorMapInterleave { CU_TENSOR_MAP_INTERLEAVE_NONE = 0 };
enum CUtensorMapSwizzle { CU_TENSOR_MAP_SWIZZLE_NONE = 0, CU_TENSOR_MAP_SWIZZLE_128B = 3 };
enum CUtensorMapL2promotion { CU_TENSOR_MAP_L2_PROMOTION_NONE = 0, CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3 };
enum CUtensorMapFloatOOBfill { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0 };

// A matrix of 16-bit elements, swizzled by 128 bytes as it is copied: all that the twin knows.
struct alignas(64) CUtensorMap {
  const unsigned char* data;
  uint64_t width, rows;  // elements, rows
  uint64_t row_bytes;
  uint32_t box_width, box_rows;
};

namespace cuda_host {

inline CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                             const cuuint64_t* size, const cuuint64_t* strides, const cuuint32_t* box,
                             const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                             CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  bool good = reinterpret_cast<uintptr_t>(map) % 64 == 0 && type == CU_TENSOR_MAP_DATA_TYPE_UINT16 && rank == 2;
  good = good && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  good = good && swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] * 2 % 16 == 0 && box[0] * 2 <= 128;
  good = good && reinterpret_cast<uintptr_t>(data) % 16 == 0 && strides[0] % 16 == 0 && strides[0] < 1ull << 40;
  good = good && strides[0] >= size[0] * 2;
  for (int d = 0; d < 2; ++d)
    good = good && size[d] >= 1 && size[d] <= 1ull << 32 && box[d] >= 1 && box[d] <= 256 && element_strides[d] == 1;
  if (!good) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const unsigned char*>(data), size[0], size[1], strides[0], box[0], box[1]};
  return CUDA_SUCCESS;
}

}  // namespace cuda_host
